// sessa-server: listens first, so that probes answer, then loads the model; takes requests until SIGTERM or
// SIGINT, and drains. Prints one line on stdout, "ready http=HOST:PORT grpc=HOST:PORT admin=HOST:PORT"
// (without the last when it is off); everything else goes to stderr. SIGHUP reads the API keys and the TLS
// files again. Exit codes: 0 after a drain, 1 with one line that says what is wrong.
#include <cstdio>
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
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "server/core/make_key.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "server/main/listener_watch.h"
#include "server/main/load_model.h"
#include "server/main/options.h"
#include "server/main/reload.h"
#include "server/main/signals.h"
#include "server/net/descriptors.h"
#include "server/net/tls_context.h"
#include "server/rest/rest_server.h"

namespace sessa {
namespace {

// After the drain: what the last events may take to reach their readers.
constexpr absl::Duration kFlush = absl::Seconds(2);

// Of probes and scrapers; descriptors are kept for them (FitConnections).
constexpr int kMaxAdminConnections = 64;

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

Watched WatchTls(const TlsFiles& files, TlsContext* tls) {
  std::vector<std::string> paths = {files.cert, files.key};
  if (!files.client_ca.empty()) paths.push_back(files.client_ca);
  Watched watched("TLS files", std::move(paths), [tls]() -> absl::StatusOr<std::string> {
    if (absl::Status reloaded = tls->Reload(); !reloaded.ok()) return reloaded;
    return std::string("in use for new connections");
  });
  watched.Read().IgnoreError();  // remembers what they were; they have just been read
  return watched;
}

struct Servers {
  std::unique_ptr<TlsContext> tls;
  std::unique_ptr<RestServer> admin, rest;
  std::unique_ptr<GrpcServer> grpc;
  std::unique_ptr<ListenerWatch> watch;
};

absl::StatusOr<Servers> Listen(const MainOptions& options, Service* service) {
  const ConnectionCaps caps = FitConnections(options.max_connections, RaiseDescriptorLimit());
  if (caps.http < options.max_connections.http) {
    std::fprintf(stderr, "the limit of file descriptors allows %d HTTP and %d gRPC connections\n", caps.http,
                 caps.grpc);
  }
  Servers servers;
  if (!options.tls.cert.empty()) {
    auto tls = TlsContext::Load(options.tls, &service->metrics().connections());
    if (!tls.ok()) return tls.status();
    servers.tls = *std::move(tls);
  }
  if (options.admin_port.has_value()) {
    auto admin = RestServer::Start({.host = options.admin_host,
                                    .port = *options.admin_port,
                                    .admin = true,
                                    .num_threads = 1,
                                    .max_connections = kMaxAdminConnections},
                                   service);
    if (!admin.ok()) return admin.status();
    servers.admin = *std::move(admin);
  }
  auto rest = RestServer::Start({.host = options.host,
                                 .port = options.http_port,
                                 .tls = servers.tls.get(),
                                 .max_connections = caps.http},
                                service);
  if (!rest.ok()) return rest.status();
  servers.rest = *std::move(rest);
  GrpcServerOptions grpc_options;
  grpc_options.host = options.host;
  grpc_options.port = options.grpc_port;
  grpc_options.tls = servers.tls.get();
  grpc_options.max_connections = caps.grpc;
  auto grpc = GrpcServer::Start(grpc_options, service);
  if (!grpc.ok()) return grpc.status();
  servers.grpc = *std::move(grpc);
  const auto check = [](auto* server) {
    return [server](absl::Duration timeout) { return server->CheckListener(timeout); };
  };
  servers.watch = std::make_unique<ListenerWatch>(
      service, std::vector<ListenerWatch::Target>{{"REST", check(servers.rest.get())},
                                                  {"gRPC", check(servers.grpc.get())}});
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
  Service service(std::move(service_options));
  absl::StatusOr<std::vector<Watched>> watched = Watch(options, &service);
  if (!watched.ok()) return watched.status();
  absl::StatusOr<Servers> servers = Listen(options, &service);
  if (!servers.ok()) return servers.status();

  if (servers->tls != nullptr) watched->push_back(WatchTls(options.tls, servers->tls.get()));
  Reloader reloader(*std::move(watched));
  Events events;
  SignalThread signals(
      [&events, &service](int count) {
        if (count > 1) {
          std::fprintf(stderr, "second signal: ending what runs\n");
          service.Drain(absl::Now());
        }
        absl::MutexLock lock(&events.mutex);
        events.num_signals = count;
      },
      [&reloader] { reloader.ReadAll(); });
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
  std::printf("ready http=%s:%d grpc=%s:%d", options.host.c_str(), servers->rest->port(),
              options.host.c_str(), servers->grpc->port());
  if (servers->admin != nullptr)
    std::printf(" admin=%s:%d", options.admin_host.c_str(), servers->admin->port());
  std::printf("\n");
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
  servers->watch.reset();
  servers->rest->Shutdown(absl::Now() + kFlush);
  servers->grpc->Shutdown(absl::Now() + kFlush);
  if (servers->admin != nullptr) servers->admin->Shutdown(absl::Now() + kFlush);
  std::fprintf(stderr, "stopped\n");
  return absl::OkStatus();
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  sessa::SignalThread::Block();
  const absl::StatusOr<sessa::MainOptions> options = sessa::ParseOptions(argc, argv);
  const absl::Status status = !options.ok()                 ? options.status()
                              : !options->make_key.empty()  ? sessa::PrintNewKey(options->make_key)
                              : !options->hash_keys.empty() ? sessa::PrintHashedKeys(options->hash_keys)
                                                            : sessa::Run(*options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "sessa-server: %s\n", std::string(status.message()).c_str());
  return 1;
}
