"""Repository rule that finds the CUDA toolkit and NCCL, or records that they are absent.

Reads TERN_CUDA (0 disables), CUDA_HOME (default /usr/local/cuda) and TERN_CUDA_ARCHS (what to compile for, such as
"sm_90a,sm_80"; default all of bazel/cuda.bzl). Never fails.
"""

def _find_home(rctx):
    if rctx.os.environ.get("TERN_CUDA", "1") == "0":
        return None
    home = rctx.os.environ.get("CUDA_HOME", "/usr/local/cuda")
    if rctx.path(home + "/bin/nvcc").exists:
        return home
    nvcc = rctx.which("nvcc")
    return str(nvcc.dirname.dirname) if nvcc else None

def _cuda_configure_impl(rctx):
    home = _find_home(rctx)
    nccl = home != None and rctx.path(home + "/include/nccl.h").exists
    archs = [arch for arch in rctx.os.environ.get("TERN_CUDA_ARCHS", "").split(",") if arch]
    rctx.file("defs.bzl", "CUDA = struct(enabled = %r, home = %r, nccl = %r, archs = %r)\n" % (
        home != None,
        home or "",
        nccl,
        archs,
    ))

    # The static runtime: what is built here runs wherever a driver is.
    cudart = '["-L%s/lib64", "-lcudart_static", "-ldl", "-lpthread", "-lrt"]' % home if home else "[]"
    libnccl = '["-lnccl", "-Wl,-rpath,%s/lib64"]' % home if nccl else "[]"
    rctx.file("BUILD.bazel", """load("@rules_cc//cc:defs.bzl", "cc_library")

package(default_visibility = ["//visibility:public"])

cc_library(
    name = "cudart",
    linkopts = %s,
)

cc_library(
    name = "nccl",
    linkopts = %s,
    deps = [":cudart"],
)
""" % (cudart, libnccl))

cuda_configure = repository_rule(
    implementation = _cuda_configure_impl,
    environ = ["TERN_CUDA", "TERN_CUDA_ARCHS", "CUDA_HOME", "PATH"],
    local = True,
)
