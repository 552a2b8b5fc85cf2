// Work that the emulated device does late, for tests above the backend, which do not see emulator.h.
#pragma once

namespace sessa::emulator {

// From here on what is enqueued is done when somebody waits for it, as late as a device may do it: the host's
// memory that it reads or writes must stay until then. Without it each call is done when it returns.
void DelayWork(bool on);
// Events that were recorded while the host had not waited for the one before, with delayed work, since the
// process began.
int num_steps_ahead();

}  // namespace sessa::emulator
