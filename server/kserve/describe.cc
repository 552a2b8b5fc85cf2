// See describe.h.
#include "server/kserve/describe.h"

#include "absl/strings/str_cat.h"
#include "server/core/errors.h"
#include "server/core/json_writer.h"
#include "server/kserve/tensors.h"

namespace sessa {
namespace {

void WriteTensors(const char* key, absl::Span<const KserveTensorSpec> specs, JsonWriter* json) {
  json->Key(key).BeginArray();
  for (const KserveTensorSpec& spec : specs) {
    json->BeginObject().Key("name").String(spec.name).Key("datatype").String(spec.datatype);
    json->Key("shape").BeginArray().Int(spec.dim).EndArray().EndObject();
  }
  json->EndArray();
}

void WriteConfigTensors(const char* key, absl::Span<const KserveTensorSpec> specs, bool optional,
                        JsonWriter* json) {
  json->Key(key).BeginArray();
  for (const KserveTensorSpec& spec : specs) {
    json->BeginObject().Key("name").String(spec.name).Key("data_type").String(spec.config_type);
    json->Key("dims").BeginArray().Int(spec.dim).EndArray();
    if (optional) json->Key("optional").Bool(true);
    json->EndObject();
  }
  json->EndArray();
}

void WriteDuration(const char* key, const KserveStatistics::Duration& duration, JsonWriter* json) {
  json->Key(key).BeginObject().Key("count").Int(duration.count).Key("ns").Int(duration.ns).EndObject();
}

}  // namespace

absl::Status CheckKserveVersion(const std::string& model, const std::string& version) {
  if (version.empty() || version == kKserveVersion) return absl::OkStatus();
  return Annotate(
      absl::NotFoundError(absl::StrCat("The model '", model, "' has no version '", version, "'.")),
      "model_version", "model_not_found");
}

std::string KserveServerJson(const Service& service) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("name").String("sessa").Key("version").String(service.options().version);
  json.Key("extensions").BeginArray();
  for (const char* extension : KserveExtensions()) json.String(extension);
  json.EndArray().EndObject();
  return out;
}

std::string KserveModelJson(const ServedModel& model) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("name").String(model.name).Key("versions").BeginArray().String(kKserveVersion);
  json.EndArray().Key("platform").String("sessa");
  WriteTensors("inputs", KserveInputs(), &json);
  WriteTensors("outputs", KserveOutputs(), &json);
  json.EndObject();
  return out;
}

std::string KserveConfigJson(const ServedModel& model) {
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("name").String(model.name).Key("platform").String("sessa");
  json.Key("backend").String("sessa").Key("max_batch_size").Int(0);
  WriteConfigTensors("input", KserveInputs(), true, &json);
  WriteConfigTensors("output", KserveOutputs(), false, &json);
  // A stream has several answers to one request.
  json.Key("model_transaction_policy").BeginObject().Key("decoupled").Bool(true).EndObject().EndObject();
  return out;
}

std::string KserveIndexJson(const Service& service) {
  std::string out;
  JsonWriter json(&out);
  json.BeginArray();
  if (auto model = service.FindModel(""); model.ok()) {
    const absl::Status ready = service.Readiness();
    json.BeginObject().Key("name").String((*model)->name).Key("version").String(kKserveVersion);
    json.Key("state").String(ready.ok() ? "READY" : "UNAVAILABLE");
    json.Key("reason").String(absl::string_view(ready.message())).EndObject();
  }
  json.EndArray();
  return out;
}

KserveStatistics StatisticsOf(Service* service) {
  const Metrics& metrics = service->metrics();
  const RequestTimes times = metrics.times();
  const auto duration = [](const RequestTimes::Sum& sum) {
    return KserveStatistics::Duration{sum.count, static_cast<int64_t>(sum.seconds * 1e9)};
  };
  KserveStatistics statistics;
  statistics.success = duration(times.e2e);
  statistics.success.count = metrics.outcome(Outcome::kStop) + metrics.outcome(Outcome::kLength);
  statistics.fail.count = metrics.ended() - statistics.success.count;
  statistics.queue = duration(times.queue);
  statistics.prefill = duration(times.prefill);
  statistics.decode = duration(times.decode);
  return statistics;
}

std::string KserveStatisticsJson(Service* service, const ServedModel& model) {
  const KserveStatistics statistics = StatisticsOf(service);
  std::string out;
  JsonWriter json(&out);
  json.BeginObject().Key("model_stats").BeginArray().BeginObject();
  json.Key("name").String(model.name).Key("version").String(kKserveVersion).Key("last_inference").Int(0);
  json.Key("inference_count").Int(statistics.success.count);
  json.Key("execution_count").Int(statistics.success.count);
  json.Key("inference_stats").BeginObject();
  WriteDuration("success", statistics.success, &json);
  WriteDuration("fail", statistics.fail, &json);
  WriteDuration("queue", statistics.queue, &json);
  WriteDuration("compute_input", statistics.prefill, &json);
  WriteDuration("compute_infer", statistics.decode, &json);
  for (const char* none : {"compute_output", "cache_hit", "cache_miss"}) WriteDuration(none, {}, &json);
  json.EndObject().Key("batch_stats").BeginArray().EndArray().Key("memory_usage").BeginArray().EndArray();
  json.EndObject().EndArray().EndObject();
  return out;
}

}  // namespace sessa
