// Stands in for libFuzzer where a target is built without it: the seeds, then a bounded number of mutants of
// them, from a fixed seed, so that every run is the same. What it finds, ./dev fuzz finds faster; this one
// runs in every test run. Arguments: the folder of the seeds, how many mutants, and the words of the folder's
// dictionary, if it has one, go into them.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace {

constexpr size_t kMaxBytes = 64 << 10;

void Run(const std::string& input) {
  std::vector<uint8_t> copy(input.begin(), input.end());  // exact size: a sanitizer sees a read past the end
  LLVMFuzzerTestOneInput(copy.data(), copy.size());
}

// The words of a libFuzzer dictionary: lines of "word", with \\xNN, \\" and \\\\.
std::vector<std::string> Dictionary(const std::string& path) {
  std::vector<std::string> words;
  std::ifstream file(path);
  for (std::string line; std::getline(file, line);) {
    if (line.size() < 2 || line.front() != '"' || line.back() != '"') continue;
    std::string word;
    for (size_t i = 1; i + 1 < line.size(); ++i) {
      if (line[i] != '\\') {
        word += line[i];
      } else if (line[++i] == 'x') {
        word += static_cast<char>(std::stoi(line.substr(i + 1, 2), nullptr, 16));
        i += 2;
      } else {
        word += line[i];
      }
    }
    words.push_back(std::move(word));
  }
  return words;
}

void Mutate(std::string* s, const std::vector<std::string>& seeds, const std::vector<std::string>& words,
            std::mt19937* rng) {
  const auto below = [&](size_t n) { return n == 0 ? 0 : static_cast<size_t>((*rng)()) % n; };
  switch (below(words.empty() ? 7 : 9)) {
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
    case 6: s->resize(below(s->size() + 1)); break;
    default: s->insert(below(s->size() + 1), words[below(words.size())]);
  }
  if (s->size() > kMaxBytes) s->resize(kMaxBytes);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return std::fprintf(stderr, "usage: %s SEEDS MUTANTS\n", argv[0]), 2;
  const std::vector<std::string> words = Dictionary(std::string(argv[1]) + ".dict");
  std::vector<std::string> seeds = {""};
  for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
    std::ifstream file(entry.path(), std::ios::binary);
    seeds.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
  }
  std::sort(seeds.begin(), seeds.end());
  for (const std::string& seed : seeds) Run(seed);
  const int num_mutants = std::atoi(argv[2]);
  std::mt19937 rng(1);
  for (int i = 0; i < num_mutants; ++i) {
    std::string input = seeds[rng() % seeds.size()];
    for (int n = 1 + static_cast<int>(rng() % 6); n > 0; --n) Mutate(&input, seeds, words, &rng);
    Run(input);
  }
  std::printf("%zu inputs tried: %zu seeds, %d mutants\n", seeds.size() + num_mutants, seeds.size(),
              num_mutants);
}
