"""Repository rule that finds the CUDA toolkit and NCCL, or records that they are absent.

Reads TERN_CUDA (0 disables) and CUDA_HOME (default /usr/local/cuda). Never fails.
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
    rctx.file("defs.bzl", "CUDA = struct(enabled = %r, home = %r, nccl = %r)\n" % (home != None, home or "", nccl))
    link = '["-L%s/lib64", "-lcudart", "-Wl,-rpath,%s/lib64"]' % (home, home) if home else "[]"
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
""" % (link, '["-lnccl"]' if nccl else "[]"))

cuda_configure = repository_rule(
    implementation = _cuda_configure_impl,
    environ = ["TERN_CUDA", "CUDA_HOME", "PATH"],
    local = True,
)
