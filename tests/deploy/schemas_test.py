"""Every document that deploy/ makes against schemas: Kubernetes' of three versions, and those of custom resources."""
import copy
import json
import pathlib
import sys
import unittest

import jsonschema
import kubernetes_validate

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import crds  # noqa: E402
import kustomize  # noqa: E402
import pypi  # noqa: E402

VERSIONS = "1.31", "1.34", "1.37"


def kserve_wheel():
    try:
        return pypi.download("kserve==0.15.2")
    except OSError as error:
        raise unittest.SkipTest(f"KServe's SDK cannot be had: {error}")


def documents():
    """{text: (overlay, document)}: each once, however many overlays have it."""
    return {json.dumps(d, sort_keys=True): (overlay, d) for overlay in kustomize.OVERLAYS for d in kustomize.build(overlay)}


def check(document):
    """Raises ValidationError. Kubernetes' own documents are checked for each version."""
    schema = crds.schema(document["apiVersion"], document["kind"], kserve_wheel)
    if schema is not None:
        jsonschema.Draft202012Validator(schema).validate(document)
    if document["kind"] == "ServingRuntime":  # what is a pod's own in it
        pod = {key: document["spec"][key] for key in ("containers", "volumes") if key in document["spec"]}
        document = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod}
    elif schema is not None:
        return
    for version in VERSIONS:
        kubernetes_validate.validate(document, version, strict=True)


class SchemasTest(unittest.TestCase):
    def test_every_document(self):
        kinds = set()
        for overlay, document in documents().values():
            kinds.add(document["kind"])
            with self.subTest(f"{overlay}: {document['kind']} {document['metadata']['name']}"):
                check(document)
        self.assertGreaterEqual(kinds, {"Deployment", "ScaledObject", "ServiceMonitor", "PrometheusRule", "Certificate",
                                        "InferencePool", "InferenceObjective", "HTTPRoute", "ServingRuntime",
                                        "InferenceService", "NetworkPolicy", "PodDisruptionBudget",
                                        "HorizontalPodAutoscaler"})

    def test_a_field_that_is_not_known_is_seen(self):
        seen = set()
        for _, document in documents().values():
            if "spec" in document and document["kind"] not in seen:
                seen.add(document["kind"])
                wrong = copy.deepcopy(document)
                wrong["spec"]["replicsa"] = 1
                if document["kind"] == "ServingRuntime":
                    wrong["spec"]["containers"][0]["imagee"] = ""
                with self.subTest(document["kind"]):
                    self.assertRaises(jsonschema.ValidationError, check, wrong)

    def test_all_names_are_in_one_namespace_that_the_user_picks(self):
        for overlay, document in documents().values():
            self.assertNotIn("namespace", document["metadata"], overlay)


if __name__ == "__main__":
    unittest.main()
