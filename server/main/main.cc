// sessa-server: listens first, so that probes answer, then loads the model; takes requests until SIGTERM or
// SIGINT, and drains. Prints one line on stdout, "ready http=HOST:PORT grpc=HOST:PORT admin=HOST:PORT"
// (without the last when it is off); everything else goes to stderr. SIGHUP reads API keys and certificates
// again. Exit codes: 0 after a drain, 1 with one line that says what is wrong.
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/monotonic.h"
#include "kernels/notice.h"
#include "kernels/slices.h"
#include "server/core/listener_watch.h"
#include "server/core/log.h"
#include "server/core/service.h"
#include "server/grpc/grpc_server.h"
#include "server/main/admin_server.h"
#include "server/main/join_group.h"
#include "server/main/key_file.h"
#include "server/main/load_model.h"
#include "server/main/options.h"
#include "server/main/reload.h"
#include "server/main/signals.h"
#include "server/main/summary.h"
#include "server/net/descriptors.h"
#include "server/net/tls_context.h"
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
    Log(absl::StrCat("the limit of file descriptors allows ", caps.http, " HTTP and ", caps.grpc,
                     " gRPC connections"),
        LogLevel::kWarning);
  }
  Servers servers;
  if (!options.tls.cert.empty()) {
    auto tls = TlsContext::Load(options.tls, &service->metrics().connections());
    if (!tls.ok()) return tls.status();
    servers.tls = *std::move(tls);
  }
  auto admin = StartAdmin(options, service);
  if (!admin.ok()) return admin.status();
  servers.admin = *std::move(admin);
  auto rest = RestServer::Start({.host = options.host,
                                 .port = options.http_port,
                                 .tls = servers.tls.get(),
                                 .cors = options.cors,
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

// What main waits for: the end of loading, signals, and the loss of another rank's process.
struct Events {
  Mutex mutex;
  std::condition_variable_any news;
  int num_signals ABSL_GUARDED_BY(mutex) = 0;
  absl::Status group ABSL_GUARDED_BY(mutex);  // not OK: why the group of ranks is lost
  bool loaded ABSL_GUARDED_BY(mutex) = false;
  absl::StatusOr<ServedModel> model ABSL_GUARDED_BY(mutex) = absl::UnknownError("");
};

// What of the group main hears: a rank that is asked to stop is as good as a signal here.
GroupEvents HearGroup(Events* events) {
  GroupEvents group;
  group.on_lost = [events](const absl::Status& why) {
    MutexLock lock(&events->mutex);
    events->group = why;
    events->news.notify_all();
  };
  group.on_stop = [events](int rank) {
    Log(absl::StrCat("rank ", rank, " was asked to stop"));
    MutexLock lock(&events->mutex);
    events->num_signals = std::max(events->num_signals, 1);
    events->news.notify_all();
  };
  return group;
}

// Loads on a thread of its own, so that signals are heard meanwhile.
absl::StatusOr<ServedModel> LoadOrStop(const MainOptions& options, Service* service, Events* events) {
  std::thread loader([&] {
    absl::StatusOr<ServedModel> model = LoadModel(options, &service->metrics(), HearGroup(events));
    MutexLock lock(&events->mutex);
    events->model = std::move(model);
    events->loaded = true;
    events->news.notify_all();
  });
  {
    MutexLock lock(&events->mutex);
    while (!events->loaded && events->num_signals == 0 && events->group.ok())
      events->news.wait(events->mutex);
    if (!events->loaded && !events->group.ok()) {
      Log(absl::StrCat("sessa-server: while loading: ", events->group.message()), LogLevel::kError);
      Exit(1);
    }
    if (!events->loaded) {
      // Loading cannot be interrupted and nothing runs yet that must be finished.
      Log("stopped while loading");
      Exit(0);
    }
  }
  loader.join();
  MutexLock lock(&events->mutex);
  return std::move(events->model);
}

// The summary, and the line that says to programs that requests are taken.
void Announce(const MainOptions& options, const Servers& servers, const ServedModel& model) {
  const Ports ports = {servers.rest->port(), servers.grpc->port(),
                       servers.admin == nullptr ? 0 : servers.admin->port()};
  for (const std::string& line : Summary(options, model, ports)) Log(line);
  StderrLog().Flush(kLogFlush);  // who reads the line that says "ready" finds the summary in the log
  std::string ready =
      absl::StrCat("ready http=", options.host, ":", ports.http, " grpc=", options.host, ":", ports.grpc);
  if (servers.admin != nullptr) absl::StrAppend(&ready, " admin=", options.admin_host, ":", ports.admin);
  LineWriter out(STDOUT_FILENO);
  out.Write(ready);
  out.Flush(kLogFlush);
}

// Drains until `deadline` and closes. Does not return when the engine hangs.
void Close(Servers* servers, Service* service, absl::Time deadline) {
  const bool drained = service->Drain(deadline);
  servers->watch.reset();
  servers->rest->Shutdown(MonotonicNow() + kFlush);
  servers->grpc->Shutdown(MonotonicNow() + kFlush);
  if (servers->admin != nullptr) servers->admin->Shutdown(MonotonicNow() + kFlush);
  if (!drained) {
    Log("stopped, though the engine hangs in a step", LogLevel::kError);
    Exit(1);
  }
  Log("stopped");
}

// What the first signal begins: settling, draining, closing.
void End(const MainOptions& options, Servers* servers, Service* service, Events* events) {
  service->BeginSettle();
  servers->grpc->PublishHealth();  // watchers hear of it now, not when the next look is due
  if (options.settle > absl::ZeroDuration()) {
    Log(absl::StrCat("not ready any more; requests are taken for ", absl::FormatDuration(options.settle)));
    MutexLock lock(&events->mutex);
    auto hastened = [events]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(events->mutex) {
      return events->num_signals > 1 || !events->group.ok();
    };
    WaitUntil(&events->news, &events->mutex, MonotonicNow() + options.settle, hastened);
  }
  const auto model = service->FindModel("");
  Log(absl::StrCat("draining: ", model.ok() ? (*model)->engine->Stats().num_running : 0,
                   " sequences run; at most ", absl::FormatDuration(options.drain),
                   ", a second signal ends them"));
  Close(servers, service, MonotonicNow() + options.drain);
}

absl::Status Run(const MainOptions& options) {
  SetLogOptions(options.log);
  SetNotice([](absl::string_view text) { Log(text, LogLevel::kWarning); });
  Events events;  // outlives the engine, whose group may still be lost
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
  absl::StatusOr<ServedModel> model = LoadOrStop(options, &service, &events);
  if (!model.ok()) return model.status();
  service.SetModel(*model);
  servers->grpc->PublishHealth();  // who reads the line that says "ready" must not find NOT_SERVING
  Announce(options, *servers, *model);
  bool lost = false;
  {
    MutexLock lock(&events.mutex);
    while (events.num_signals == 0 && events.group.ok()) events.news.wait(events.mutex);
    lost = !events.group.ok();
  }
  model = absl::UnavailableError("");  // the service's alone from here on
  if (lost) {                          // the engine fails what runs, in the step that it is in
    Close(&*servers, &service, MonotonicNow() + kFlush);
  } else {
    End(options, &*servers, &service, &events);
  }
  MutexLock lock(&events.mutex);
  return events.group;
}

absl::Status Do(const MainOptions& options) {
  if (!options.text.empty()) {
    std::fputs(options.text.c_str(), stdout);
    return std::fflush(stdout) == 0 ? absl::OkStatus() : absl::UnavailableError("stdout takes no text");
  }
  if (!options.make_key.empty()) return PrintNewKey(options.make_key);
  if (!options.hash_keys.empty()) return PrintHashedKeys(options.hash_keys);
  if (options.group.has_value() && options.group->rank > 0) return RunMember(options);
  return Run(options);
}

}  // namespace
}  // namespace sessa

int main(int argc, char** argv) {
  sessa::OpenStandardDescriptors();
  // glibc raises this bound to 32 MiB with each larger block that is freed, and keeps what is below it: after
  // 300 bodies of 4 MiB that were kept open the server kept 73 MiB, with a fixed bound 3.
  mallopt(M_MMAP_THRESHOLD, 1 << 20);
  sessa::SignalThread::Block();
  sessa::AskForSlices(sessa::kShortestSlice);  // of every thread that asks for no other
  const absl::StatusOr<sessa::MainOptions> options = sessa::ParseOptions(argc, argv);
  const absl::Status status = options.ok() ? sessa::Do(*options) : options.status();
  // Before the options are read nothing is known of the log's format: a line for people.
  if (!options.ok()) sessa::StderrLog().Write(absl::StrCat("sessa-server: ", status.message()));
  if (options.ok() && !status.ok())
    sessa::Log(absl::StrCat("sessa-server: ", status.message()), sessa::LogLevel::kError);
  sessa::StderrLog().Flush(sessa::kLogFlush);
  return status.ok() ? 0 : 1;
}
