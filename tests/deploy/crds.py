"""JSON schemas of the custom resources that deploy/ uses, strict: a field that is not known is an error.

Whose they are: KEDA's, the Prometheus operator's and cert-manager's come from cloudcoil's models, which are made of the
projects' CRDs; KServe's from the types of its own Python SDK, as its wheel has them (a pod's own fields are judged as a Pod).
No package has those of the Gateway API, of its inference extension and of LeaderWorkerSet: FIELDS below lists what their v1 says
of the fields that are used here, and no more than that is checked (pod templates are judged as Pods, by schemas_test.py)."""
import ast
import functools
import importlib
import re
import zipfile

STRING, INTEGER = {"type": "string"}, {"type": "integer"}


def fields(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


def one_of(*values):
    return {"enum": list(values)}


def list_of(items, most):
    return {"type": "array", "items": items, "minItems": 1, "maxItems": most}


NAME = {"type": "string", "minLength": 1, "maxLength": 253}
PORT = {"type": "integer", "minimum": 1, "maximum": 65535}
LABELS = {"type": "object", "additionalProperties": {"type": "string", "maxLength": 63}}
REFERENCE = fields(["name"], group=STRING, kind=STRING, name=NAME, namespace=NAME)

# A pod's own fields are judged elsewhere.
TEMPLATE = fields(["spec"], metadata=fields(labels=LABELS, annotations={"type": "object"}), spec={"type": "object"})

# (apiVersion, kind): the schema of spec.
FIELDS = {
    ("leaderworkerset.x-k8s.io/v1", "LeaderWorkerSet"): fields(
        ["leaderWorkerTemplate"], replicas={"type": "integer", "minimum": 0},
        startupPolicy=one_of("LeaderCreated", "LeaderReady"),
        networkConfig=fields(["subdomainPolicy"], subdomainPolicy=one_of("Shared", "UniquePerReplica")),
        rolloutStrategy=fields(["type"], type=one_of("RollingUpdate"), rollingUpdateConfiguration=fields(
            partition=INTEGER, maxUnavailable={"type": ["integer", "string"]}, maxSurge={"type": ["integer", "string"]})),
        leaderWorkerTemplate=fields(
            ["workerTemplate"], leaderTemplate=TEMPLATE, workerTemplate=TEMPLATE, size={"type": "integer", "minimum": 1},
            restartPolicy=one_of("RecreateGroupOnPodRestart", "RecreateGroupAfterStart", "None"))),
    ("inference.networking.k8s.io/v1", "InferencePool"): fields(
        ["selector", "targetPorts", "endpointPickerRef"], selector=fields(["matchLabels"], matchLabels=LABELS),
        targetPorts=list_of(fields(["number"], number=PORT), 8), appProtocol=STRING,
        endpointPickerRef=fields(["name"], group=STRING, kind=STRING, name=NAME, port=fields(["number"], number=PORT),
                                 failureMode=one_of("FailOpen", "FailClose"))),
    ("inference.networking.x-k8s.io/v1alpha2", "InferenceObjective"): fields(
        ["poolRef"], priority=INTEGER, poolRef=fields(["name"], group=STRING, kind=STRING, name=NAME)),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): fields(
        parentRefs={"type": "array", "maxItems": 32, "items": fields(["name"], group=STRING, kind=STRING, name=NAME,
                                                                     namespace=NAME, sectionName=NAME, port=PORT)},
        hostnames=list_of(STRING, 16),
        rules=list_of(fields(
            name=NAME,
            matches=list_of(fields(path=fields(type=one_of("Exact", "PathPrefix", "RegularExpression"),
                                               value={"type": "string", "pattern": "^/", "maxLength": 1024}),
                                   method=STRING), 64),
            backendRefs=list_of(fields(["name"], group=STRING, kind=STRING, name=NAME, namespace=NAME, port=PORT,
                                       weight={"type": "integer", "minimum": 0, "maximum": 1000000}), 16),
            timeouts=fields(request={"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"},
                            backendRequest={"type": "string", "pattern": r"^([0-9]{1,5}(h|m|s|ms)){1,4}$"})), 16)),
}
CLOUDCOIL = {
    ("keda.sh/v1alpha1", "ScaledObject"): "keda.v1alpha1",
    ("monitoring.coreos.com/v1", "ServiceMonitor"): "prometheus_operator.v1",
    ("monitoring.coreos.com/v1", "PrometheusRule"): "prometheus_operator.v1",
    ("cert-manager.io/v1", "Certificate"): "cert_manager.v1",
}
KSERVE = {
    ("serving.kserve.io/v1alpha1", "ServingRuntime"): "V1alpha1ServingRuntime",
    ("serving.kserve.io/v1beta1", "InferenceService"): "V1beta1InferenceService",
}


def strict(schema):
    """The same, and nothing else is allowed where properties are listed."""
    if isinstance(schema, dict):
        schema = {key: strict(value) for key, value in schema.items()}
        if "properties" in schema and "additionalProperties" not in schema:
            schema["additionalProperties"] = False
        return schema
    return [strict(value) for value in schema] if isinstance(schema, list) else schema


def from_cloudcoil(module, kind):
    schema = getattr(importlib.import_module(f"cloudcoil.models.{module}"), kind).model_json_schema(by_alias=True)
    schema = strict(schema)
    schema["properties"]["metadata"] = {"type": "object"}  # Kubernetes' own
    return schema


def from_kserve(wheel, kind):
    """Of the dictionaries `openapi_types` and `attribute_map` of the SDK's classes, whose files are read, not run."""
    definitions = {}
    with zipfile.ZipFile(wheel) as archive:
        for file in archive.namelist():
            if not re.fullmatch(r"kserve/models/v1(alpha1|beta1)_\w+\.py", file):
                continue
            for node in ast.parse(archive.read(file)).body:
                if isinstance(node, ast.ClassDef):
                    maps = {s.targets[0].id: ast.literal_eval(s.value) for s in node.body
                            if isinstance(s, ast.Assign) and s.targets[0].id in ("openapi_types", "attribute_map")}
                    definitions[node.name] = fields(**{json: maps["openapi_types"][name]
                                                       for name, json in maps["attribute_map"].items()})

    def schema_of(text):
        if inner := re.fullmatch(r"list\[(.*)\]", text):
            return {"type": "array", "items": schema_of(inner[1])}
        if inner := re.fullmatch(r"dict\(str, (.*)\)", text):
            return {"type": "object", "additionalProperties": schema_of(inner[1])}
        basic = {"str": STRING, "int": INTEGER, "bool": {"type": "boolean"}, "float": {"type": "number"}}
        return {"$ref": f"#/$defs/{text}"} if text in definitions else basic.get(text, {})  # {}: Kubernetes' own

    for definition in definitions.values():
        definition["properties"] = {name: schema_of(text) for name, text in definition["properties"].items()}
    return {"$ref": f"#/$defs/{kind}", "$defs": definitions}


@functools.cache
def schema(api_version, kind, kserve_wheel):
    """Of a whole document; None: no custom resource that is known. `kserve_wheel` is called where it is needed."""
    key = api_version, kind
    if key in FIELDS:
        return fields(["apiVersion", "kind", "metadata", "spec"], apiVersion=STRING, kind=STRING, metadata={"type": "object"},
                      spec=FIELDS[key])
    if key in CLOUDCOIL:
        return from_cloudcoil(CLOUDCOIL[key], kind)
    if key in KSERVE:
        return from_kserve(kserve_wheel(), KSERVE[key])
    return None
