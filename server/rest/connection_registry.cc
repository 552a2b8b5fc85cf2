// The connections that live; see connection.h.
#include <utility>

#include "server/rest/connection.h"

namespace sessa {

bool ConnectionRegistry::Add(Connection* key, std::weak_ptr<Connection> connection) {
  MutexLock lock(&mutex_);
  if (closed_) return false;
  connections_.emplace(key, Entry{std::move(connection), std::nullopt});
  stats_->OnAccepted(listener_);
  return true;
}

void ConnectionRegistry::Remove(Connection* key) {
  MutexLock lock(&mutex_);
  const auto it = connections_.find(key);
  if (it == connections_.end()) return;
  SetIdleLocked(key, &it->second, false);
  num_evicted_ -= it->second.evicted;
  connections_.erase(it);
  if (connections_.empty()) emptied_.notify_all();
  stats_->OnClosed(listener_);
}

void ConnectionRegistry::SetIdle(Connection* key, bool idle) {
  MutexLock lock(&mutex_);
  const auto it = connections_.find(key);
  if (it != connections_.end()) SetIdleLocked(key, &it->second, idle);
}

void ConnectionRegistry::SetIdleLocked(Connection* key, Entry* entry, bool idle) {
  if (entry->idle.has_value() == idle) return;
  if (idle) {
    entry->idle = idle_.insert(idle_.end(), key);
  } else {
    idle_.erase(*entry->idle);
    entry->idle.reset();
  }
}

bool ConnectionRegistry::EvictIdle() {
  std::shared_ptr<Connection> longest;
  {
    MutexLock lock(&mutex_);
    while (longest == nullptr) {
      if (idle_.empty()) return false;
      Connection* const key = idle_.front();
      Entry& entry = connections_.at(key);
      SetIdleLocked(key, &entry, false);
      num_evicted_ += !std::exchange(entry.evicted, true);
      longest = entry.connection.lock();  // null: it is about to leave by itself
    }
  }
  stats_->OnCut(listener_, Cut::kEvicted);
  longest->BeginShutdown();
  return true;
}

void ConnectionRegistry::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
}

int ConnectionRegistry::size() const {
  MutexLock lock(&mutex_);
  return static_cast<int>(connections_.size());
}

int ConnectionRegistry::num_evicted() const {
  MutexLock lock(&mutex_);
  return num_evicted_;
}

std::vector<std::shared_ptr<Connection>> ConnectionRegistry::All() const {
  std::vector<std::shared_ptr<Connection>> all;
  MutexLock lock(&mutex_);
  all.reserve(connections_.size());
  for (const auto& [key, entry] : connections_) {
    if (auto connection = entry.connection.lock()) all.push_back(std::move(connection));
  }
  return all;
}

bool ConnectionRegistry::WaitUntilEmpty(absl::Time deadline) const {
  auto empty = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return connections_.empty(); };
  MutexLock lock(&mutex_);
  return WaitUntil(&emptied_, &mutex_, deadline, empty);
}

}  // namespace sessa
