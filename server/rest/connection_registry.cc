// The connections that live; see connection.h.
#include "server/rest/connection.h"

namespace sessa {

bool ConnectionRegistry::Add(Connection* key, std::weak_ptr<Connection> connection) {
  MutexLock lock(&mutex_);
  if (closed_) return false;
  connections_.emplace(key, std::move(connection));
  return true;
}

void ConnectionRegistry::Remove(Connection* key) {
  MutexLock lock(&mutex_);
  connections_.erase(key);
  if (connections_.empty()) emptied_.notify_all();
}

void ConnectionRegistry::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

int ConnectionRegistry::size() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(connections_.size());
}

std::vector<std::shared_ptr<Connection>> ConnectionRegistry::All() const {
  std::vector<std::shared_ptr<Connection>> all;
  MutexLock lock(&mutex_);
  all.reserve(connections_.size());
  for (const auto& [key, weak] : connections_) {
    if (auto connection = weak.lock()) all.push_back(std::move(connection));
  }
  return all;
}

bool ConnectionRegistry::WaitUntilEmpty(absl::Time deadline) const {
  auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return connections_.empty(); };
  MutexLock lock(&mutex_);
  return WaitUntil(&emptied_, &mutex_, deadline, empty);
}

}  // namespace sessa
