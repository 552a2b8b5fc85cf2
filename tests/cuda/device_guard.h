// Emulated device memory that only kernels and copies can touch, as on a GPU: any other access ends the
// process.
#pragma once

namespace sessa::emulator {

// Of memory allocated while it is on. For one thread that runs kernels at a time: while it does, others could
// touch too.
void GuardDeviceMemory(bool on);

// Who holds one may touch device memory.
class DeviceAccess {
 public:
  DeviceAccess();
  ~DeviceAccess();
  DeviceAccess(const DeviceAccess&) = delete;
  DeviceAccess& operator=(const DeviceAccess&) = delete;
};

}  // namespace sessa::emulator
