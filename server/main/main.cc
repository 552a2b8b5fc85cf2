// sessa-server: listens first, so that probes answer, then loads the model; takes requests until SIGTERM or
// SIGINT, and drains. Prints one line on stdout, "ready http=HOST:PORT grpc=HOST:PORT"; everything else goes
// to stderr. Exit codes: 0 after a drain, 1 with one line that says what is wrong.
#include <malloc.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
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
  absl::Mutex mutex;
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
      std::fprintf(stderr, "second signal: ending what runs\n");
      service.Drain(absl::Now());
    }
    absl::MutexLock lock(&events.mutex);
    events.num_signals = count;
  });
  std::thread loader([&events, &options, &service] {
    absl::StatusOr<ServedModel> model = LoadModel(options, &service.metrics());
    absl::MutexLock lock(&events.mutex);
    events.model = std::move(model);
    events.loaded = true;
  });

  {
    absl::MutexLock lock(&events.mutex);
    auto news = [&events]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(events.mutex) {
      return events.loaded || events.num_signals > 0;
    };
    events.mutex.Await(absl::Condition(&news));
    if (!events.loaded) {
      // Loading cannot be interrupted and nothing runs yet that must be finished.
      std::fprintf(stderr, "stopped while loading\n");
      std::_Exit(0);
    }
  }
  loader.join();
  {
    absl::MutexLock lock(&events.mutex);
    if (!events.model.ok()) return events.model.status();
    service.SetModel(*std::move(events.model));
  }
  servers->grpc->PublishHealth();  // who reads the line below must not find NOT_SERVING
  std::printf("ready http=%s:%d grpc=%s:%d\n", options.host.c_str(), servers->rest->port(),
              options.host.c_str(), servers->grpc->port());
  std::fflush(stdout);

  {
    absl::MutexLock lock(&events.mutex);
    auto signalled = [&events]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(events.mutex) { return events.num_signals > 0; };
    events.mutex.Await(absl::Condition(&signalled));
  }
  service.BeginSettle();
  servers->grpc->PublishHealth();  // watchers hear of it now, not when the next look is due
  if (options.settle > absl::ZeroDuration()) {
    std::fprintf(stderr, "not ready any more; requests are taken for %s\n",
                 absl::FormatDuration(options.settle).c_str());
    absl::MutexLock lock(&events.mutex);
    auto hastened = [&events]()
                        ABSL_EXCLUSIVE_LOCKS_REQUIRED(events.mutex) { return events.num_signals > 1; };
    events.mutex.AwaitWithTimeout(absl::Condition(&hastened), options.settle);
  }
  std::fprintf(stderr, "draining: %d sequences run; at most %s, a second signal ends them\n",
               service.FindModel("").ok() ? (*service.FindModel(""))->engine->Stats().num_running : 0,
               absl::FormatDuration(options.drain).c_str());
  service.Drain(absl::Now() + options.drain);
  servers->rest->Shutdown(absl::Now() + kFlush);
  servers->grpc->Shutdown(absl::Now() + kFlush);
  std::fprintf(stderr, "stopped\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  // glibc raises this bound to 32 MiB with each larger block that is freed, and keeps what is below it: after 300
  // bodies of 4 MiB that were kept open the server kept 73 MiB, with a fixed bound 3.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  sessa::SignalThread::Block();
  const absl::StatusOr<sessa::MainOptions> options = sessa::ParseOptions(argc, argv);
  const absl::Status status = options.ok() ? sessa::Run(*options) : options.status();
  if (status.ok()) return 0;
  std::fprintf(stderr, "sessa-server: %s\n", std::string(status.message()).c_str());
  return 1;
}
