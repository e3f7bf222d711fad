"""Checks the Kubernetes manifests against each other and against the programs.

usage: render_test.py MANIFEST_DIR PROGRAM...

With kubectl at hand the CPU overlay is rendered and checked, otherwise the raw
files of the base. Needs nothing beside Python's own library.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

MANIFESTS = ""
PROGRAMS = {}  # name -> path


# --- The part of YAML that kubectl prints and our files use. ---


def scalar(text):
    """A value on one line."""
    text = text.strip()
    if text[:1] in ("'", '"'):
        return text[1:-1]
    if text in ("true", "false"):
        return text == "true"
    if text == "{}":
        return {}
    if text == "[]":
        return []
    if re.fullmatch(r"0[0-7]+", text):
        return int(text, 8)
    if re.fullmatch(r"-?[0-9]+", text):
        return int(text)
    return text


def is_list_item(text):
    return text == "-" or text.startswith("- ")


def parse_block(lines, indent):
    """Takes the block of that indentation off the front of `lines`."""
    if is_list_item(lines[0][1]):
        result = []
        while lines and lines[0][0] == indent and is_list_item(lines[0][1]):
            _, text = lines.pop(0)
            rest = text[1:].lstrip()
            if re.match(r"[\w./-]+:( |$)", rest):
                # A map whose first key stands behind the dash.
                inner = indent + len(text) - len(rest)
                lines.insert(0, (inner, rest))
                result.append(parse_block(lines, inner))
            elif rest:
                result.append(scalar(rest))
            else:
                result.append(parse_block(lines, lines[0][0]))
        return result
    result = {}
    while lines and lines[0][0] == indent and not is_list_item(lines[0][1]):
        _, text = lines.pop(0)
        key, _, value = text.partition(":")
        if key in result:
            raise ValueError("repeated key " + key)
        if value.strip():
            result[key] = scalar(value)
        elif lines and (lines[0][0] > indent or
                        (lines[0][0] == indent and is_list_item(lines[0][1]))):
            result[key] = parse_block(lines, lines[0][0])
        else:
            result[key] = None
    if lines and lines[0][0] > indent:
        raise ValueError("cannot read: " + lines[0][1])
    return result


def parse_yaml(text):
    """The documents of a file."""
    documents = []
    for document in re.split(r"(?m)^---.*$", text):
        lines = []
        for line in document.splitlines():
            line = re.sub(r"(^|\s)#.*", "", line).rstrip()
            if line:
                content = line.lstrip()
                lines.append((len(line) - len(content), content))
        if lines:
            documents.append(parse_block(lines, lines[0][0]))
    return documents


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


# --- What is checked. ---


def literals(generator):
    return dict(literal.split("=", 1) for literal in generator["literals"])


def raw_objects():
    """The base's objects, with the generated ConfigMap in kustomize's stead."""
    base = os.path.join(MANIFESTS, "base")
    kustomization = parse_yaml(read(os.path.join(base, "kustomization.yaml")))[0]
    objects = []
    for resource in kustomization["resources"]:
        objects += parse_yaml(read(os.path.join(base, resource)))
    for generator in kustomization["configMapGenerator"]:
        objects.append({
            "kind": "ConfigMap",
            "metadata": {"name": generator["name"]},
            "data": literals(generator),
        })
    return objects


def rendered_objects():
    # A copy, because kustomize refuses files that are links to elsewhere.
    with tempfile.TemporaryDirectory() as directory:
        copy = os.path.join(directory, "k8s")
        shutil.copytree(MANIFESTS, copy)
        text = subprocess.run(
            ["kubectl", "kustomize", os.path.join(copy, "overlays", "cpu")],
            check=True, stdout=subprocess.PIPE, text=True).stdout
    return parse_yaml(text)


def flags_in(words):
    """--name=value words as a map, values None where there is none."""
    flags = {}
    for word in words:
        match = re.fullmatch(r"--([a-z0-9_]+)(?:=(.*))?", word)
        if match:
            flags[match.group(1)] = match.group(2)
    return flags


def known_flags(program, *arguments):
    """Names of the flags that the program's help lists."""
    text = subprocess.run([PROGRAMS[program], *arguments], check=True,
                          stdout=subprocess.PIPE, text=True).stdout
    return set(re.findall(r"(?m)^ +--(?:no)?([a-z0-9_]+)", text))


def port_of(address):
    return int(address.rsplit(":", 1)[1])


class Manifests:
    """The checks; a class below for each source of the objects."""

    def of_kind(self, kind):
        return {o["metadata"]["name"]: o
                for o in self.objects if o["kind"] == kind}

    def pods(self):
        """Pod specs with their containers."""
        deployments = self.of_kind("Deployment")
        self.assertEqual(set(deployments), {"tern-coordinator", "tern-worker"})
        for name, deployment in deployments.items():
            pod = deployment["spec"]["template"]["spec"]
            self.assertEqual(len(pod["containers"]), 1, name)
            yield name, pod, pod["containers"][0]

    def environment(self, container):
        names = {variable["name"] for variable in container.get("env", [])}
        config_maps = self.of_kind("ConfigMap")
        for source in container.get("envFrom", []):
            names |= set(config_maps[source["configMapRef"]["name"]]["data"])
        return names

    def probes(self, container):
        for kind in ("startupProbe", "livenessProbe", "readinessProbe"):
            yield kind, container[kind]["exec"]["command"]

    def test_programs_know_the_flags_they_are_given(self):
        for name, _, container in self.pods():
            program = os.path.basename(container["command"][0])
            self.assertEqual(name, "tern-" + program)
            given = flags_in(container["args"])
            self.assertEqual(len(given), len(container["args"]), "repeated?")
            unknown = set(given) - known_flags(program, "--help")
            self.assertFalse(unknown, program)

    def test_probes_use_flags_that_tern_knows(self):
        for name, _, container in self.pods():
            for kind, command in self.probes(container):
                self.assertEqual(command[:2], ["/opt/tern/bin/tern", "health"])
                unknown = set(flags_in(command)) - known_flags(
                    "tern", "help", "health")
                self.assertFalse(unknown, f"{name} {kind}")

    def test_probes_ask_for_the_right_service(self):
        for _, _, container in self.pods():
            for kind, command in self.probes(container):
                self.assertEqual(
                    command[-1],
                    "readiness" if kind == "readinessProbe" else "liveness")

    def test_all_ports_are_the_one_listened_on(self):
        for name, _, container in self.pods():
            flags = flags_in(container["args"])
            port = port_of(flags["listen"])
            self.assertEqual(
                [p["containerPort"] for p in container["ports"]], [port], name)
            for kind, command in self.probes(container):
                self.assertEqual(port_of(flags_in(command)["server"]), port,
                                 f"{name} {kind}")
            if "advertise_address" in flags:
                self.assertEqual(port_of(flags["advertise_address"]), port)

    def test_probes_and_programs_share_their_certificates(self):
        for name, _, container in self.pods():
            flags = flags_in(container["args"])
            for kind, command in self.probes(container):
                probe = flags_in(command)
                self.assertEqual(probe["peer_name"], name)
                for flag in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
                    self.assertEqual(probe[flag], flags[flag],
                                     f"{name} {kind}")
            self.assertNotIn("insecure", flags)

    def test_every_variable_in_a_command_line_is_defined(self):
        for name, _, container in self.pods():
            used = set(re.findall(r"\$\((\w+)\)", " ".join(container["args"])))
            self.assertFalse(used - self.environment(container), name)

    def test_every_volume_mounted_exists_and_leads_somewhere(self):
        claims = self.of_kind("PersistentVolumeClaim")
        for name, pod, container in self.pods():
            volumes = {v["name"]: v for v in pod["volumes"]}
            mounted = {m["name"]: m["mountPath"]
                       for m in container["volumeMounts"]}
            self.assertEqual(set(volumes), set(mounted), name)
            self.assertEqual(volumes["tls"]["secret"]["secretName"],
                             name + "-tls")
            for volume in volumes.values():
                if "persistentVolumeClaim" in volume:
                    self.assertIn(volume["persistentVolumeClaim"]["claimName"],
                                  claims)
            flags = flags_in(container["args"])
            for flag in ("tls_ca_file", "tls_cert_file", "tls_key_file"):
                self.assertEqual(os.path.dirname(flags[flag]), mounted["tls"])
            self.assertEqual(os.path.dirname(flags["model"]),
                             mounted["models"])
            if "cache_dir" in flags:
                self.assertEqual(flags["cache_dir"], mounted["cache"])
                limit = volumes["cache"]["emptyDir"]["sizeLimit"]
                self.assertEqual(limit[-2:], "Gi")
                self.assertLess(int(flags["cache_max_bytes"]),
                                int(limit[:-2]) << 30)

    def test_selectors_match_the_labels_of_pods(self):
        labels = {}
        for name, deployment in self.of_kind("Deployment").items():
            spec = deployment["spec"]
            labels[name] = spec["template"]["metadata"]["labels"]
            selector = spec["selector"]["matchLabels"]
            self.assertLessEqual(selector.items(), labels[name].items())
        for name, service in self.of_kind("Service").items():
            selector = service["spec"]["selector"]
            matching = [d for d, l in labels.items()
                        if selector.items() <= l.items()]
            self.assertEqual(len(matching), 1, name)

    def test_services_lead_to_named_ports(self):
        for name, service in self.of_kind("Service").items():
            for deployment, _, container in self.pods():
                labels = self.of_kind("Deployment")[deployment]["spec"][
                    "template"]["metadata"]["labels"]
                if not service["spec"]["selector"].items() <= labels.items():
                    continue
                ports = {p["name"]: p["containerPort"]
                         for p in container["ports"]}
                for port in service["spec"]["ports"]:
                    self.assertEqual(ports[port["targetPort"]], port["port"],
                                     name)

    def test_workers_reach_a_coordinator_that_is_not_ready_yet(self):
        worker = self.of_kind("Deployment")["tern-worker"]["spec"]["template"]
        args = flags_in(worker["spec"]["containers"][0]["args"])
        host, port = args["coordinator"].rsplit(":", 1)
        service = self.of_kind("Service")[host]["spec"]
        self.assertEqual(service["selector"],
                         {"app.kubernetes.io/name": "tern-coordinator"})
        self.assertIs(service["publishNotReadyAddresses"], True)
        self.assertEqual([p["port"] for p in service["ports"]], [int(port)])

    def test_pods_have_no_rights_they_do_not_need(self):
        for name, pod, container in self.pods():
            self.assertIs(pod["securityContext"]["runAsNonRoot"], True, name)
            self.assertIs(pod["automountServiceAccountToken"], False)
            security = container["securityContext"]
            self.assertIs(security["readOnlyRootFilesystem"], True)
            self.assertIs(security["allowPrivilegeEscalation"], False)
            self.assertEqual(security["capabilities"]["drop"], ["ALL"])
            self.assertIn("memory", container["resources"]["limits"])

    def test_there_is_one_coordinator(self):
        spec = self.of_kind("Deployment")["tern-coordinator"]["spec"]
        self.assertEqual(spec["replicas"], 1)
        self.assertEqual(spec["strategy"]["type"], "Recreate")


class RawBase(Manifests, unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.objects = raw_objects()

    def test_overlays_name_files_that_exist(self):
        overlays = os.path.join(MANIFESTS, "overlays")
        for overlay in os.listdir(overlays):
            directory = os.path.join(overlays, overlay)
            path = os.path.join(directory, "kustomization.yaml")
            kustomization = parse_yaml(read(path))[0]
            named = kustomization["resources"] + [
                p["path"] for p in kustomization.get("patches", [])]
            for name in named:
                self.assertTrue(os.path.exists(os.path.join(directory, name)),
                                f"{overlay}: {name}")


@unittest.skipUnless(shutil.which("kubectl"), "kubectl is not installed")
class RenderedCpuOverlay(Manifests, unittest.TestCase):

    @classmethod
    def setUpClass(cls):
        cls.objects = rendered_objects()

    def test_each_stage_has_a_worker(self):
        config = next(iter(self.of_kind("ConfigMap").values()))["data"]
        workers = self.of_kind("Deployment")["tern-worker"]["spec"]["replicas"]
        self.assertEqual(int(config["STAGES"]), 2)
        self.assertGreaterEqual(workers, int(config["STAGES"]))

    def test_the_patch_sizes_the_workers(self):
        worker = self.of_kind("Deployment")["tern-worker"]["spec"]["template"]
        resources = worker["spec"]["containers"][0]["resources"]
        self.assertEqual(resources["requests"], resources["limits"])


if __name__ == "__main__":
    MANIFESTS = sys.argv[1]
    PROGRAMS = {os.path.basename(path): path for path in sys.argv[2:]}
    unittest.main(argv=sys.argv[:1])
