// The flags of sessa-loadtest, by topic.
#pragma once

#include <cstdint>
#include <string>

#include "absl/flags/declare.h"
#include "flags/command_line.h"
#include "flags/units.h"

ABSL_DECLARE_FLAG(std::string, url);
ABSL_DECLARE_FLAG(std::string, api);
ABSL_DECLARE_FLAG(std::string, model);
ABSL_DECLARE_FLAG(std::string, prompt_as);
ABSL_DECLARE_FLAG(int32_t, vocab_size);
ABSL_DECLARE_FLAG(double, temperature);
ABSL_DECLARE_FLAG(bool, ignore_eos);
ABSL_DECLARE_FLAG(bool, return_token_ids);
ABSL_DECLARE_FLAG(std::string, extra_body);
ABSL_DECLARE_FLAG(std::string, api_key);
ABSL_DECLARE_FLAG(std::string, tenants_file);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, request_timeout_seconds);
ABSL_DECLARE_FLAG(std::string, metrics_url);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, metrics_interval_seconds);

ABSL_DECLARE_FLAG(std::string, rate);
ABSL_DECLARE_FLAG(double, ramp_to);
ABSL_DECLARE_FLAG(std::string, arrivals);
ABSL_DECLARE_FLAG(double, burstiness);
ABSL_DECLARE_FLAG(int32_t, users);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, think_seconds);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, duration_seconds);
ABSL_DECLARE_FLAG(int64_t, num_requests);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, drain_seconds);
ABSL_DECLARE_FLAG(double, search_share);
ABSL_DECLARE_FLAG(uint64_t, seed);

ABSL_DECLARE_FLAG(std::string, lengths);
ABSL_DECLARE_FLAG(std::string, mix);
ABSL_DECLARE_FLAG(int32_t, max_context);
ABSL_DECLARE_FLAG(int32_t, prefixes);
ABSL_DECLARE_FLAG(std::string, prefix_tokens);
ABSL_DECLARE_FLAG(double, prefix_share);
ABSL_DECLARE_FLAG(std::string, turns);
ABSL_DECLARE_FLAG(std::string, turn_input);
ABSL_DECLARE_FLAG(std::string, trace);
ABSL_DECLARE_FLAG(double, trace_time_scale);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, trace_offset_seconds);
ABSL_DECLARE_FLAG(double, cancel_share);
ABSL_DECLARE_FLAG(double, probe_rate);
ABSL_DECLARE_FLAG(std::string, probe_tokens);

ABSL_DECLARE_FLAG(sessa::FlagSeconds, warmup_seconds);
ABSL_DECLARE_FLAG(sessa::FlagSeconds, cooldown_seconds);
ABSL_DECLARE_FLAG(std::string, slo);
ABSL_DECLARE_FLAG(sessa::FlagMilliseconds, max_send_lag_ms);
ABSL_DECLARE_FLAG(sessa::FlagMilliseconds, max_loop_lag_ms);
ABSL_DECLARE_FLAG(double, max_cpu_share);
ABSL_DECLARE_FLAG(std::string, title);
ABSL_DECLARE_FLAG(std::string, json);
ABSL_DECLARE_FLAG(std::string, csv);
ABSL_DECLARE_FLAG(std::string, html);
ABSL_DECLARE_FLAG(bool, progress);

namespace sessa::loadtest {

const Program& LoadTester();

}  // namespace sessa::loadtest
