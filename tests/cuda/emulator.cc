#include "tests/cuda/emulator.h"

#include <algorithm>
#include <atomic>
#include <boost/context/fiber.hpp>
#include <cstdio>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "kernels/round.h"
#include "tests/cuda/device_guard.h"

namespace sessa::emulator {

namespace context = boost::context;

thread_local Fiber* current = nullptr;
thread_local dim3 block_index, block_size, grid_size;
thread_local void* dynamic_shared = nullptr;

namespace {

constexpr size_t kStackBytes = 64 << 10, kMaxShared = 227 << 10;  // of a block on Hopper
constexpr int kWarp = 32;

[[noreturn]] void Die(const char* what) {
  std::fprintf(stderr, "CUDA emulator: %s (block %u %u %u of %u %u %u, %u threads)\n", what, block_index.x,
               block_index.y, block_index.z, grid_size.x, grid_size.y, grid_size.z, block_size.x);
  std::abort();
}

enum class Wait { kNone, kBlock, kWarp, kExited };

struct Warp {
  int num_waiting = 0, num_exited = 0;
  WarpWords slots[2];  // by turns: who writes one has seen every lane leave the other
};

struct Copy {
  void* shared;
  const void* global;  // null: zeros
  void Run() const { global != nullptr ? std::memcpy(shared, global, 16) : std::memset(shared, 0, 16); }
};

struct Thread : Fiber {
  Wait wait = Wait::kNone;
  std::vector<std::vector<Copy>> copies;  // groups that wait, the last one open
  std::vector<size_t> unfenced;           // the chunks of shared memory that late copies brought
  std::vector<std::vector<std::function<void()>>> products;  // as copies
  bool has_begun_products;
  context::fiber self, scheduler;
};

// The stacks outlive the fibers: making 256 of them for each block would cost more than the block.
struct Stacks {
  std::vector<std::unique_ptr<char[]>> memory;
};
struct StackOf {
  char* memory;
  context::stack_context allocate() {
    context::stack_context stack;
    stack.size = kStackBytes;
    stack.sp = memory + kStackBytes;
    return stack;
  }
  void deallocate(context::stack_context&) {}
};

constexpr std::align_val_t kSharedAlign{1024};
constexpr uint32_t kSharedBase = 1024;  // of dynamic shared memory: the system takes what is before
struct FreeShared {
  void operator()(char* p) const { ::operator delete[](p, kSharedAlign); }
};

struct Machine {
  Stacks stacks;
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::unique_ptr<char[], FreeShared> shared;
  size_t shared_bytes = 0;
  std::vector<char> unfenced;  // chunks of shared memory that products must not read
  int num_block_waiting = 0, num_exited = 0;
  // Of the block, one of four by turns: all ways in which copies and products can be early and late.
  unsigned turn = 0;
  bool is_backwards() const { return turn % 2 == 1; }
  bool copies_are_early() const { return turn % 2 == 1; }
  bool products_are_early() const { return turn % 4 >= 2; }
};
thread_local Machine machine;

void Yield(Wait why) {
  Thread* thread = static_cast<Thread*>(current);
  thread->wait = why;
  thread->scheduler = std::move(thread->scheduler).resume();
}

void RunBlock(unsigned n, bool must_begin, void (*body)(void*), void* argument) {
  Machine& m = machine;
  m.warps.assign(CeilDiv(n, kWarp), {});
  m.num_block_waiting = m.num_exited = 0;
  m.unfenced.assign((m.shared_bytes + 15) / 16, 0);
  m.threads.resize(n);
  while (m.stacks.memory.size() < n) m.stacks.memory.emplace_back(new char[kStackBytes]);
  for (unsigned i = 0; i < n; ++i) {
    Thread& t = m.threads[i];
    static_cast<Fiber&>(t) = {dim3(i, 0, 0), static_cast<int>(i % kWarp), static_cast<int>(i / kWarp), 0,
                              false};
    t.wait = Wait::kNone;
    t.copies.assign(1, {});
    t.unfenced.clear();
    t.products.assign(1, {});
    t.has_begun_products = false;
    t.self = context::fiber(std::allocator_arg, StackOf{m.stacks.memory[i].get()},
                            [&t, body, argument](context::fiber&& scheduler) {
                              t.scheduler = std::move(scheduler);
                              body(argument);
                              if (t.products.size() > 1 || !t.products.back().empty())
                                Die("a thread ends before its products");
                              t.wait = Wait::kExited;
                              return std::move(t.scheduler);
                            });
  }
  while (m.num_exited < static_cast<int>(n)) {
    bool moved = false;
    for (unsigned k = 0; k < n; ++k) {
      Thread& t = m.threads[m.is_backwards() ? n - 1 - k : k];
      if (t.wait != Wait::kNone) continue;
      moved = true;
      current = &t;
      t.self = std::move(t.self).resume();
      Warp& warp = m.warps[t.warp];
      if (t.wait == Wait::kBlock) ++m.num_block_waiting;
      if (t.wait == Wait::kWarp) ++warp.num_waiting;
      if (t.wait == Wait::kExited) ++m.num_exited, ++warp.num_exited;
      if (t.wait != Wait::kNone && must_begin && !t.has_begun)
        Die("a kernel that does not call BeginKernel first");
      if (warp.num_waiting > 0 && warp.num_waiting == kWarp) {
        warp.num_waiting = 0;
        for (int lane = 0; lane < kWarp; ++lane) m.threads[t.warp * kWarp + lane].wait = Wait::kNone;
      }
      if (warp.num_waiting > 0 && warp.num_exited > 0) Die("a warp-wide operation that a lane has left");
    }
    if (m.num_block_waiting > 0 && m.num_block_waiting + m.num_exited == static_cast<int>(n)) {
      if (m.num_exited > 0) Die("__syncthreads that a thread never reaches");
      m.num_block_waiting = 0;
      for (Thread& t : m.threads) t.wait = Wait::kNone;
    } else if (!moved) {
      Die("deadlock: some threads wait for their warp, others for their block");
    }
  }
  current = nullptr;
  ++m.turn;
}

std::atomic<int> kernels_run{0};

}  // namespace

int num_kernels() { return kernels_run; }
void BlockBarrier() { Yield(Wait::kBlock); }
void WarpBarrier() { Yield(Wait::kWarp); }

const WarpWords& Exchange(const uint32_t* words, int n) {
  Warp& warp = machine.warps[current->warp];
  WarpWords& slots = warp.slots[current->num_exchanges++ % 2];
  std::copy(words, words + n, slots.words[current->lane]);
  WarpBarrier();
  return slots;
}

void CopyAsync(void* shared, const void* global, bool valid) {
  const Copy copy{shared, valid ? global : nullptr};
  if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 ||
      (valid && reinterpret_cast<uintptr_t>(global) % 16 != 0))
    Die("cp.async of 16 bytes that are not aligned");
  if (machine.copies_are_early()) {
    copy.Run();
  } else {
    static_cast<Thread*>(current)->copies.back().push_back(copy);
  }
}
void CommitCopies() { static_cast<Thread*>(current)->copies.emplace_back(); }
void WaitForCopies(int pending) {
  auto& copies = static_cast<Thread*>(current)->copies;
  while (static_cast<int>(copies.size()) - 1 > pending) {
    for (const Copy& copy : copies.front()) {
      copy.Run();
      const ptrdiff_t at = static_cast<char*>(copy.shared) - machine.shared.get();
      if (at < 0 || static_cast<size_t>(at) >= machine.shared_bytes || machine.unfenced[at / 16] != 0)
        continue;
      machine.unfenced[at / 16] = 1;
      static_cast<Thread*>(current)->unfenced.push_back(at / 16);
    }
    copies.erase(copies.begin());
  }
}

void Require(bool holds, const char* what) {
  if (!holds) Die(what);
}
void FenceOperands() {
  auto& unfenced = static_cast<Thread*>(current)->unfenced;
  for (size_t chunk : unfenced) machine.unfenced[chunk] = 0;
  unfenced.clear();
}
void BeginProducts() { static_cast<Thread*>(current)->has_begun_products = true; }
void AddProduct(std::function<void()> product) {
  Thread* thread = static_cast<Thread*>(current);
  Require(thread->has_begun_products, "a product without BeginProducts since the last wait");
  Require(machine.threads.size() % (4 * kWarp) == 0, "products of a block that is not whole warpgroups");
  if (machine.products_are_early()) {
    product();
  } else {
    thread->products.back().push_back(std::move(product));
  }
}
void CommitProducts() { static_cast<Thread*>(current)->products.emplace_back(); }
void WaitForProducts(int pending) {
  Thread* thread = static_cast<Thread*>(current);
  while (static_cast<int>(thread->products.size()) - 1 > pending) {
    for (const auto& product : thread->products.front()) product();
    thread->products.erase(thread->products.begin());
  }
  thread->has_begun_products = false;
  WarpBarrier();
}
uint32_t SharedAddress(const void* shared) {
  const ptrdiff_t at = static_cast<const char*>(shared) - machine.shared.get();
  Require(at >= 0 && static_cast<size_t>(at) < machine.shared_bytes,
          "an operand outside dynamic shared memory");
  return kSharedBase + static_cast<uint32_t>(at);
}
const void* OperandChunk(uint32_t address) {
  const uint32_t at = address - kSharedBase;
  Require(address >= kSharedBase && at + 16 <= machine.shared_bytes, "a product reads beyond shared memory");
  Require(machine.unfenced[at / 16] == 0, "a product reads a copy that no FenceOperands followed");
  return machine.shared.get() + at;
}

void Run(dim3 grid, unsigned block, size_t shared_bytes, bool must_begin, void (*body)(void*),
         void* argument) {
  grid_size = grid;
  block_size = dim3(block);
  block_index = dim3(0, 0, 0);
  if (current != nullptr) Die("a launch from a kernel");
  ++kernels_run;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535)
    Die("no device takes this grid");
  if (block == 0 || block > 1024 || block % kWarp != 0) Die("blocks are whole warps, at most 1024 threads");
  if (shared_bytes > kMaxShared) Die("too much shared memory");
  // Of just the size: a sanitizer sees who goes beyond.
  machine.shared_bytes = std::max<size_t>(16, (shared_bytes + 15) / 16 * 16);
  machine.shared.reset(static_cast<char*>(::operator new[](machine.shared_bytes, kSharedAlign)));
  dynamic_shared = machine.shared.get();
  const DeviceAccess access;
  for (unsigned z = 0; z < grid.z; ++z) {
    for (unsigned y = 0; y < grid.y; ++y) {
      for (unsigned x = 0; x < grid.x; ++x) {
        block_index = dim3(x, y, z);
        std::memset(dynamic_shared, 0xff, shared_bytes);
        RunBlock(block, must_begin, body, argument);
      }
    }
  }
}

}  // namespace sessa::emulator
