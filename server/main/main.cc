// sessa-server: listens first, so that probes answer, then loads the model; takes requests until SIGTERM or
// SIGINT, and drains. Prints one line on stdout, "ready http=HOST:PORT grpc=HOST:PORT"; everything else goes
// to stderr. SIGHUP reads the API keys again. Exit codes: 0 after a drain, 1 with one line that says what is
// wrong.
#include <fcntl.h>
#include <unistd.h>

#include <condition_variable>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "server/core/log.h"
#include "server/core/make_key.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "server/main/load_model.h"
#include "server/main/options.h"
#include "server/main/reload.h"
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

absl::Status PrintNewKey(const std::string& tenant) {
  const absl::StatusOr<NewKey> made = MakeKey(tenant);
  if (!made.ok())
    return absl::Status(made.status().code(), absl::StrCat("--make_key: ", made.status().message()));
  std::printf("%s\n", made->line.c_str());
  if (std::fflush(stdout) != 0) return absl::UnavailableError("--make_key: the line could not be written");
  std::fprintf(stderr, "The key, shown this once: %s\n", made->key.c_str());
  return absl::OkStatus();
}

absl::Status PrintHashedKeys(const std::string& path) {
  absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  std::fputs(HashKeys(*text).c_str(), stdout);
  return std::fflush(stdout) == 0 ? absl::OkStatus() : absl::UnavailableError("--hash_keys: writing failed");
}

absl::StatusOr<std::string> ReadKeys(const std::string& path, Service* service) {
  absl::StatusOr<ApiKeys> keys = ApiKeys::Load(path);
  if (!keys.ok()) return keys.status();
  if (const int plain = keys->num_plain_keys(); plain > 0) {
    std::fprintf(
        stderr,
        "warning: %s holds %d API keys in plain text; sessa-server --hash_keys=%s prints it with hashes "
        "in their place\n",
        path.c_str(), plain, path.c_str());
  }
  const std::string what = absl::StrCat(keys->num_keys(), " keys of ", keys->tenants().size(), " tenants");
  service->tenants().Reload(*std::move(keys));
  return what;
}

// What is read again while the server runs. Read here for the first time.
absl::StatusOr<std::vector<Watched>> Watch(const MainOptions& options, Service* service) {
  std::vector<Watched> watched;
  if (!options.api_keys_file.empty()) {
    watched.emplace_back("API keys", std::vector{options.api_keys_file},
                         [path = options.api_keys_file, service] { return ReadKeys(path, service); });
  }
  for (Watched& files : watched) {
    if (const absl::StatusOr<std::string> read = files.Read(); !read.ok()) return read.status();
  }
  return watched;
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
  Service service(std::move(service_options));
  absl::StatusOr<std::vector<Watched>> watched = Watch(options, &service);
  if (!watched.ok()) return watched.status();
  absl::StatusOr<Servers> servers = Listen(options, &service);
  if (!servers.ok()) return servers.status();

  Reloader reloader(*std::move(watched));
  Events events;
  SignalThread signals(
      [&events, &service](int count) {
        if (count > 1) {
          Log("second signal: ending what runs");
          service.Drain(MonotonicNow());
        }
        MutexLock lock(&events.mutex);
        events.num_signals = count;
        events.news.notify_all();
      },
      [&reloader] { reloader.ReadAll(); });
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
  const absl::Status status = !options.ok()                 ? options.status()
                              : !options->make_key.empty()  ? sessa::PrintNewKey(options->make_key)
                              : !options->hash_keys.empty() ? sessa::PrintHashedKeys(options->hash_keys)
                                                            : sessa::Run(*options);
  if (!status.ok()) sessa::Log(absl::StrCat("sessa-server: ", status.message()));
  sessa::StderrLog().Flush(sessa::kLogFlush);
  return status.ok() ? 0 : 1;
}
