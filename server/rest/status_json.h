// Bodies of the endpoints that only report: models, limits, versions.
#pragma once

#include <string>

#include "server/core/service.h"

namespace sessa {

std::string ModelJson(const ServedModel& model);  // OpenAI's object
std::string ModelListJson(const ServedModel& model);
// The server's, the model's when one is loaded, and what the key file says of `tenant`.
std::string LimitsJson(const Service& service, const std::string& tenant);
std::string VersionJson(const Service& service);
// What runs and waits; zeros while the model is loading.
std::string LoadJson(const Service& service);
// What sglang-router and vllm-router ask of a worker (/get_load, /server_info, /model_info), in SGLang's
// names: one data-parallel rank and the tokens it holds and has waiting; capacity; what is served. No path of
// this machine's is in it: a router elsewhere would look there for a tokenizer.
std::string RouterLoadJson(const Service& service);
std::string RouterServerJson(const Service& service, const ServedModel& model);
std::string RouterModelJson(const ServedModel& model);
// This API's description, openapi.json beside this file.
std::string OpenApiJson();

}  // namespace sessa
