// The tokenizer's files: which may be left out, and that one which is there but cannot be read is never taken
// for that: without its configuration a tokenizer would silently leave out the BOS.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/tokenizer.h"

namespace sessa {
namespace {

class FilesTest : public testing::Test {
 protected:
  FilesTest() {
    std::filesystem::create_directories(dir_);
    std::filesystem::copy(absl::StrCat(SESSA_DEMO_MODEL, "/tokenizer.json"), dir_ + "/tokenizer.json");
  }
  ~FilesTest() override { std::filesystem::remove_all(dir_); }

  // What loading both says.
  absl::Status Load() const {
    absl::Status status = Tokenizer::Load(dir_).status();
    status.Update(ChatTemplate::Load(dir_).status());
    return status;
  }

  const std::string dir_ = absl::StrCat(testing::TempDir(), "/sessa_files_", getpid());
};

TEST_F(FilesTest, UnreadableIsNotAbsent) {
  EXPECT_TRUE(Load().ok()) << Load();  // with neither of the other two
  const std::pair<const char*, void (*)(const std::string&)> spoilers[] = {
      // Permissions would not stop root.
      {"a folder", [](const std::string& path) { std::filesystem::create_directory(path); }},
      {"a link to nothing", [](const std::string& path) { std::filesystem::create_symlink("gone", path); }},
      {"a link to itself", [](const std::string& path) { std::filesystem::create_symlink(path, path); }},
      {"empty", [](const std::string& path) { std::ofstream file(path); }},
  };
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja", "tokenizer.json"}) {
    const std::string path = dir_ + "/" + name;
    for (const auto& [what, spoil] : spoilers) {
      std::filesystem::remove_all(path);
      spoil(path);
      const absl::Status status = Load();
      EXPECT_FALSE(status.ok()) << name << " is " << what;
      EXPECT_NE(status.message().find(name), std::string::npos) << status;
    }
    std::filesystem::remove_all(path);
  }
}

TEST_F(FilesTest, ReadFileHasABound) {
  const std::string path = dir_ + "/ten";
  std::ofstream(path) << "0123456789";
  EXPECT_EQ(*ReadFile(path, 10), "0123456789");
  EXPECT_EQ(ReadFile(path, 9).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile("/dev/zero", 1 << 20).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ReadFile(dir_ + "/none").status().code(), absl::StatusCode::kNotFound);
}

}  // namespace
}  // namespace sessa
