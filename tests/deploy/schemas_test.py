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


def pods(document):
    """What is a pod's own in a custom resource."""
    spec = document["spec"]
    if document["kind"] == "ServingRuntime":
        return [{key: spec[key] for key in ("containers", "volumes") if key in spec}]
    if document["kind"] == "LeaderWorkerSet":
        return [spec["leaderWorkerTemplate"][template]["spec"] for template in ("leaderTemplate", "workerTemplate")]
    return []


def check(document):
    """Raises ValidationError. Kubernetes' own documents are checked for each version."""
    schema = crds.schema(document["apiVersion"], document["kind"], kserve_wheel)
    if schema is not None:
        jsonschema.Draft202012Validator(schema).validate(document)
    checked = [document]
    if schema is not None:
        checked = [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "pod"}, "spec": pod} for pod in pods(document)]
    for each in checked:
        for version in VERSIONS:
            kubernetes_validate.validate(each, version, strict=True)



class SchemasTest(unittest.TestCase):
    def test_every_document(self):
        kinds = set()
        for overlay, document in documents().values():
            kinds.add(document["kind"])
            with self.subTest(f"{overlay}: {document['kind']} {document['metadata']['name']}"):
                check(document)
        self.assertGreaterEqual(kinds, {"Deployment", "ScaledObject", "ServiceMonitor", "PrometheusRule", "Certificate",
                                        "InferencePool", "InferenceObjective", "HTTPRoute", "ServingRuntime",
                                        "InferenceService", "LeaderWorkerSet", "NetworkPolicy", "PodDisruptionBudget",
                                        "HorizontalPodAutoscaler"})

    def test_a_field_that_is_not_known_is_seen(self):
        seen = set()
        for _, document in documents().values():
            if "spec" in document and document["kind"] not in seen:
                seen.add(document["kind"])
                wrong = copy.deepcopy(document)
                wrong["spec"]["replicsa"] = 1
                with self.subTest(document["kind"]):
                    self.assertRaises(jsonschema.ValidationError, check, wrong)
                for i in range(len(pods(document))):
                    wrong = copy.deepcopy(document)
                    pods(wrong)[i]["containers"][0]["imagee"] = ""
                    with self.subTest(document["kind"], pod=i):
                        self.assertRaises(jsonschema.ValidationError, check, wrong)

    def test_all_names_are_in_one_namespace_that_the_user_picks(self):
        for overlay, document in documents().values():
            self.assertNotIn("namespace", document["metadata"], overlay)


if __name__ == "__main__":
    unittest.main()
