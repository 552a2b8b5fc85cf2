// What --group_address asks for: this process as one of a group of ranks, whichever rank it is.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "server/checkpoint/checkpoint.h"
#include "server/group/process_group.h"
#include "server/main/options.h"

namespace sessa {

// Blocks until all ranks have come. `engine` are the options with the checkpoint's formats filled in.
// Requires: options.group.
absl::StatusOr<std::shared_ptr<ProcessGroup>> JoinGroup(const MainOptions& options,
                                                        const EngineOptions& engine,
                                                        const Checkpoint& checkpoint, GroupEvents events);

// What the engine takes: keeps the whole group.
std::shared_ptr<RankGroup> RanksOf(const std::shared_ptr<ProcessGroup>& group);

// The whole life of a process whose rank is not 0: loads, says "ready rank=N admin=HOST:PORT" on stdout, and
// ends when the leader does. UNAVAILABLE when a rank is lost. The first signal asks the leader to drain and
// end the group; the second ends the process. Only the admin port listens, for /livez and /metrics.
absl::Status RunMember(const MainOptions& options);

}  // namespace sessa
