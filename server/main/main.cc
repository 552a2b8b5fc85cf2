// sessa-server: listens first, so that probes answer, then loads the model; takes requests until SIGTERM or
// SIGINT, and drains. Prints one line on stdout, "ready http=HOST:PORT grpc=HOST:PORT"; everything else goes
// to stderr. Exit codes: 0 after a drain, 1 with one line that says what is wrong.
#include <fcntl.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "server/core/log.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "server/main/load_model.h"
#include "server/main/options.h"
#include "server/main/signals.h"
#include "server/rest/rest_server.h"

namespace sessa {
namespace {

// After the drain: what the last events may take to reach their readers.
constexpr absl::Duration kFlush = absl::Seconds(2);

// The log's last lines may take so long; its reader may have stopped reading.
constexpr absl::Duration kLogFlush = absl::Seconds(1);

[[noreturn]] void Exit(int code) {
  StderrLog().Flush(kLogFlush);
  std::_Exit(code);
}

// Were 0, 1 or 2 closed, the next socket or file would get the number, and what is printed would go there.
void OpenStandardDescriptors() {
  int fd = open("/dev/null", O_RDWR);
  while (fd >= 0 && fd <= STDERR_FILENO) fd = open("/dev/null", O_RDWR);
  close(fd);
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("reading ", path));
  return text.str();
}

struct Servers {
  std::unique_ptr<RestServer> rest;
  std::unique_ptr<GrpcServer> grpc;
};

absl::StatusOr<Servers> Listen(const MainOptions& options, Service* service) {
  RestServerOptions rest;
  rest.host = options.host;
  rest.port = options.http_port;
  GrpcServerOptions grpc;
  grpc.host = options.host;
  grpc.port = options.grpc_port;
  if (!options.tls_cert.empty()) {
    absl::StatusOr<std::string> cert = ReadFile(options.tls_cert);
    if (!cert.ok()) return cert.status();
    absl::StatusOr<std::string> key = ReadFile(options.tls_key);
    if (!key.ok()) return key.status();
    rest.tls_cert_file = options.tls_cert;
    rest.tls_key_file = options.tls_key;
    grpc.tls_cert_pem = *std::move(cert);
    grpc.tls_key_pem = *std::move(key);
  }
  Servers servers;
  auto rest_server = RestServer::Start(rest, service);
  if (!rest_server.ok()) return rest_server.status();
  servers.rest = *std::move(rest_server);
  auto grpc_server = GrpcServer::Start(grpc, service);
  if (!grpc_server.ok()) return grpc_server.status();
  servers.grpc = *std::move(grpc_server);
  return servers;
}

// What main waits for: the end of loading, and signals.
struct Events {
  Mutex mutex;
  std::condition_variable_any news;
  int num_signals ABSL_GUARDED_BY(mutex) = 0;
  bool loaded ABSL_GUARDED_BY(mutex) = false;
  absl::StatusOr<ServedModel> model ABSL_GUARDED_BY(mutex) = absl::UnknownError("");
};

absl::Status Run(const MainOptions& options) {
  ServiceOptions service_options;
  service_options.model_name = options.served_model_name;
  service_options.limits = options.limits;
  service_options.access_log = options.access_log;
  if (!options.api_keys_file.empty()) {
    absl::StatusOr<ApiKeys> keys = ApiKeys::Load(options.api_keys_file);
    if (!keys.ok()) return keys.status();
    service_options.api_keys = *std::move(keys);
  }
  Service service(std::move(service_options));
  absl::StatusOr<Servers> servers = Listen(options, &service);
  if (!servers.ok()) return servers.status();

  Events events;
  SignalThread signals([&events, &service](int count) {
    if (count > 1) {
      Log("second signal: ending what runs");
      service.Drain(MonotonicNow());
    }
    MutexLock lock(&events.mutex);
    events.num_signals = count;
    events.news.notify_all();
  });
  std::thread loader([&events, &options, &service] {
    absl::StatusOr<ServedModel> model = LoadModel(options, &service.metrics());
    MutexLock lock(&events.mutex);
    events.model = std::move(model);
    events.loaded = true;
    events.news.notify_all();
  });

  {
    MutexLock lock(&events.mutex);
    while (!events.loaded && events.num_signals == 0) events.news.wait(events.mutex);
    if (!events.loaded) {
      // Loading cannot be interrupted and nothing runs yet that must be finished.
      Log("stopped while loading");
      Exit(0);
    }
  }
  loader.join();
  {
    MutexLock lock(&events.mutex);
    if (!events.model.ok()) return events.model.status();
    service.SetModel(*std::move(events.model));
  }
  servers->grpc->PublishHealth();  // who reads the line below must not find NOT_SERVING
  LineWriter out(STDOUT_FILENO);
  out.Write(absl::StrCat("ready http=", options.host, ":", servers->rest->port(), " grpc=", options.host, ":",
                         servers->grpc->port()));

  {
    MutexLock lock(&events.mutex);
    while (events.num_signals == 0) events.news.wait(events.mutex);
  }
  service.BeginSettle();
  servers->grpc->PublishHealth();  // watchers hear of it now, not when the next look is due
  if (options.settle > absl::ZeroDuration()) {
    Log(absl::StrCat("not ready any more; requests are taken for ", absl::FormatDuration(options.settle)));
    MutexLock lock(&events.mutex);
    auto hastened = [&events]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(events.mutex) { return events.num_signals > 1; };
    WaitUntil(&events.news, &events.mutex, MonotonicNow() + options.settle, hastened);
  }
  const int num_running =
      service.FindModel("").ok() ? (*service.FindModel(""))->engine->Stats().num_running : 0;
  Log(absl::StrCat("draining: ", num_running, " sequences run; at most ", absl::FormatDuration(options.drain),
                   ", a second signal ends them"));
  const bool drained = service.Drain(MonotonicNow() + options.drain);
  servers->rest->Shutdown(MonotonicNow() + kFlush);
  servers->grpc->Shutdown(MonotonicNow() + kFlush);
  if (!drained) {
    Log("stopped, though the engine hangs in a step");
    Exit(1);
  }
  Log("stopped");
  return absl::OkStatus();
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  sessa::OpenStandardDescriptors();
  sessa::SignalThread::Block();
  const absl::StatusOr<sessa::MainOptions> options = sessa::ParseOptions(argc, argv);
  const absl::Status status = options.ok() ? sessa::Run(*options) : options.status();
  if (!status.ok()) sessa::Log(absl::StrCat("sessa-server: ", status.message()));
  sessa::StderrLog().Flush(sessa::kLogFlush);
  return status.ok() ? 0 : 1;
}
