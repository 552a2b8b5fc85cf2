// The flags of sessa-server, by topic.
#pragma once

#include <cstdint>
#include <string>

#include "absl/flags/declare.h"
#include "flags/command_line.h"
#include "flags/units.h"

ABSL_DECLARE_FLAG(std::string, model);
ABSL_DECLARE_FLAG(std::string, generation_config);
ABSL_DECLARE_FLAG(std::string, chat_template);
ABSL_DECLARE_FLAG(std::string, served_model_name);
ABSL_DECLARE_FLAG(std::string, host);
ABSL_DECLARE_FLAG(int32_t, http_port);
ABSL_DECLARE_FLAG(int32_t, grpc_port);
ABSL_DECLARE_FLAG(std::string, admin_host);
ABSL_DECLARE_FLAG(std::string, admin_port);
ABSL_DECLARE_FLAG(int32_t, max_http_connections);
ABSL_DECLARE_FLAG(int32_t, max_grpc_connections);
ABSL_DECLARE_FLAG(std::string, cache_events);
ABSL_DECLARE_FLAG(std::string, cache_events_topic);
ABSL_DECLARE_FLAG(std::string, api_keys_file);
ABSL_DECLARE_FLAG(std::string, make_key);
ABSL_DECLARE_FLAG(std::string, hash_keys);
ABSL_DECLARE_FLAG(std::string, tls_cert);
ABSL_DECLARE_FLAG(std::string, tls_key);
ABSL_DECLARE_FLAG(std::string, tls_client_ca);
ABSL_DECLARE_FLAG(bool, insecure);
ABSL_DECLARE_FLAG(std::string, cors_allow_origins);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, request_timeout_seconds);
ABSL_DECLARE_FLAG(sessa::ByteSize, max_body_bytes);
ABSL_DECLARE_FLAG(sessa::ByteSize, max_answer_bytes);
ABSL_DECLARE_FLAG(sessa::ByteSize, max_buffered_bytes);
ABSL_DECLARE_FLAG(int32_t, max_requests_per_tenant);
ABSL_DECLARE_FLAG(int32_t, max_queued_requests);
ABSL_DECLARE_FLAG(int64_t, max_queued_tokens);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, max_queue_seconds);
ABSL_DECLARE_FLAG(std::string, device);
ABSL_DECLARE_FLAG(int32_t, tensor_parallel_size);
ABSL_DECLARE_FLAG(int32_t, rank);
ABSL_DECLARE_FLAG(std::string, group_address);
ABSL_DECLARE_FLAG(std::string, group_secret_file);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, group_silence_seconds);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, group_start_seconds);
ABSL_DECLARE_FLAG(int32_t, threads);
ABSL_DECLARE_FLAG(std::string, weight_dtype);
ABSL_DECLARE_FLAG(std::string, state_dtype);
ABSL_DECLARE_FLAG(std::string, activation_dtype);
ABSL_DECLARE_FLAG(std::string, amx);
ABSL_DECLARE_FLAG(bool, batch_invariant);
ABSL_DECLARE_FLAG(sessa::ByteSize, state_cache_bytes);
ABSL_DECLARE_FLAG(int32_t, page_size);
ABSL_DECLARE_FLAG(int32_t, max_model_len);
ABSL_DECLARE_FLAG(bool, prefix_caching);
ABSL_DECLARE_FLAG(int32_t, max_preemptions);
ABSL_DECLARE_FLAG(std::string, speculation);
ABSL_DECLARE_FLAG(int32_t, max_num_seqs);
ABSL_DECLARE_FLAG(int32_t, max_step_tokens);
ABSL_DECLARE_FLAG(sessa::FlagMilliseconds, target_step_ms);
ABSL_DECLARE_FLAG(std::string, log_format);
ABSL_DECLARE_FLAG(std::string, log_level);
ABSL_DECLARE_FLAG(std::string, access_log);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, settle_seconds);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, drain_seconds);

namespace sessa {

const Program& Server();

}  // namespace sessa
