// Stands in for libFuzzer where a target is built without it: the seeds, then a bounded number of mutants of
// them, from a fixed seed, so that every run is the same. What it finds, ./dev fuzz finds faster; this one
// runs in every test run.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr int kMutants = 100000;
constexpr size_t kMaxBytes = 64 << 10;

void Run(const std::string& input) {
  std::vector<uint8_t> copy(input.begin(), input.end());  // exact size: a sanitizer sees a read past the end
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

void Mutate(std::string* s, const std::vector<std::string>& seeds, std::mt19937* rng) {
  const auto below = [&](size_t n) { return n == 0 ? 0 : static_cast<size_t>((*rng)()) % n; };
  switch (below(7)) {
    case 0:
      if (!s->empty()) (*s)[below(s->size())] = static_cast<char>((*rng)());
      break;
    case 1:
      if (!s->empty()) (*s)[below(s->size())] ^= static_cast<char>(1 << below(8));
      break;
    case 2: s->insert(below(s->size() + 1), 1, "0\"\\{}[],:-e.\n\xff\0 "[below(17)]); break;
    case 3: {
      const size_t at = below(s->size());
      s->erase(at, 1 + below(std::min<size_t>(16, s->size() - at)));
      break;
    }
    case 4: {  // repeat a piece
      const size_t at = below(s->size());
      const std::string piece = s->substr(at, 1 + below(32));
      for (size_t n = 1 + below(8); n > 0; --n) s->insert(at, piece);
      break;
    }
    case 5: {  // a piece of another seed
      const std::string& other = seeds[below(seeds.size())];
      s->insert(below(s->size() + 1), other.substr(below(other.size()), 1 + below(64)));
      break;
    }
    default: s->resize(below(s->size() + 1));
  }
  if (s->size() > kMaxBytes) s->resize(kMaxBytes);
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> seeds = {""};
  for (int i = 1; i < argc; ++i) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[i])) {
      std::ifstream file(entry.path(), std::ios::binary);
      seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  std::sort(seeds.begin(), seeds.end());
  for (const std::string& seed : seeds) Run(seed);
  std::mt19937 rng(1);
  for (int i = 0; i < kMutants; ++i) {
    std::string input = seeds[rng() % seeds.size()];
    for (int n = 1 + static_cast<int>(rng() % 6); n > 0; --n) Mutate(&input, seeds, &rng);
    Run(input);
  }
  std::printf("%zu seeds, %d mutants\n", seeds.size(), kMutants);
}
