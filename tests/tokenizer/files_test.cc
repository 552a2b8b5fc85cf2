// The tokenizer's files: which may be left out, and that one which is there but cannot be read is never taken
// for that: without its configuration a tokenizer would silently leave out the BOS.
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "absl/strings/str_cat.h"
#include "server/file/read_file.h"
#include "server/tokenizer/chat_template.h"
#include "server/tokenizer/chat_template_files.h"
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
    const auto chat = ChatTemplate::Load(dir_);
    status.Update(chat.ok() && *chat != nullptr ? (*chat)->status() : chat.status());
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
  for (const char* name : {"tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json",
                           "added_tokens.json", "tokenizer.json"}) {
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

TEST_F(FilesTest, ChatTemplateIsChosenAsTransformersDoes) {
  const auto write = [this](const std::string& name, const std::string& text) {
    std::filesystem::create_directories(std::filesystem::path(dir_ + "/" + name).parent_path());
    std::ofstream(dir_ + "/" + name) << text;
  };
  const auto chosen = [this](bool has_tools) {
    const auto templates = ReadChatTemplates(dir_);
    if (!templates.ok()) return std::string(templates.status().message());
    const ChatTemplateText* text = ChooseChatTemplate(*templates, has_tools);
    return text == nullptr ? "none" : text->source;
  };
  EXPECT_EQ(chosen(false), "none");
  write("tokenizer_config.json", R"({"chat_template": "of config"})");
  EXPECT_EQ(chosen(false), "of config");
  EXPECT_EQ(chosen(true), "of config");
  write("tokenizer_config.json", R"({"chat_template": [{"name": "default", "template": "d"},
      {"name": "tool_use", "template": "t"}, {"name": "rag", "template": "r"}]})");
  EXPECT_EQ(chosen(false), "d");
  EXPECT_EQ(chosen(true), "t");
  write("chat_template.jinja", "of file");  // the configuration's are out, all of them
  EXPECT_EQ(chosen(false), "of file");
  EXPECT_EQ(chosen(true), "of file");
  write("additional_chat_templates/tool_use.jinja", "tools of file");
  EXPECT_EQ(chosen(false), "of file");
  EXPECT_EQ(chosen(true), "tools of file");
  std::filesystem::remove(dir_ + "/chat_template.jinja");
  EXPECT_EQ(chosen(false), "none");
  std::filesystem::remove_all(dir_ + "/additional_chat_templates");
  for (const char* bad : {R"({"chat_template": 5})", R"({"chat_template": [{"name": "default"}]})", "[]"}) {
    write("tokenizer_config.json", bad);
    EXPECT_NE(chosen(false).find("/tokenizer_config.json"), std::string::npos) << chosen(false);
  }
}

// As transformers reads a folder: what special_tokens_map.json and added_tokens.json say counts only where
// tokenizer_config.json has no added_tokens_decoder.
TEST_F(FilesTest, TokensThatTheFolderAdds) {
  const auto write = [this](const char* name, const char* text) { std::ofstream(dir_ + "/" + name) << text; };
  const auto load = [this] {
    auto tokenizer = Tokenizer::Load(dir_);
    EXPECT_TRUE(tokenizer.ok()) << tokenizer.status();
    return *std::move(tokenizer);
  };
  using Ids = std::vector<int32_t>;
  const Ids apart = *load()->Encode("a<pad>b", false);
  EXPECT_GT(apart.size(), 3u);
  write("special_tokens_map.json", R"({"pad_token": {"content": "<pad>"}, "eos_token": "Freya"})");
  write("added_tokens.json", R"({"<pad>": 1024})");
  write("tokenizer_config.json", R"({"eos_token": "Chen", "pad_token": "Ben"})");
  auto tokenizer = load();
  EXPECT_EQ(tokenizer->Encode("a<pad>b", false)->at(1), 1024);
  EXPECT_TRUE(tokenizer->IsSpecial(1024));
  EXPECT_TRUE(tokenizer->IsSpecial(1021));  // Freya
  EXPECT_FALSE(tokenizer->IsSpecial(1019));
  EXPECT_EQ(tokenizer->eos_token(), "Freya");
  EXPECT_EQ(*tokenizer->Decode(*tokenizer->Encode("a<pad>b", false), true), "ab");
  write("tokenizer_config.json", R"({"eos_token": "Chen", "pad_token": "Ben", "added_tokens_decoder":
      {"1030": {"content": "<mine>", "special": false, "lstrip": true}}, "additional_special_tokens": ["Will"]})");
  tokenizer = load();
  EXPECT_EQ(*tokenizer->Encode("a<pad>b", false), apart);
  EXPECT_EQ(tokenizer->Encode("a   <mine>b", false)->at(1), 1030);
  EXPECT_FALSE(tokenizer->IsSpecial(1030));
  EXPECT_TRUE(tokenizer->IsSpecial(1019) && tokenizer->IsSpecial(1020) && tokenizer->IsSpecial(1022));
  EXPECT_EQ(tokenizer->eos_token(), "Chen");
  for (const char* bad :
       {R"({"added_tokens_decoder": {"x": {"content": "<x>"}}})", R"({"added_tokens_decoder": 5})",
        R"({"added_tokens_decoder": {"5": {"content": "<x>"}}})", R"({"cls_token": 5})"}) {
    write("tokenizer_config.json", bad);
    EXPECT_FALSE(Tokenizer::Load(dir_).ok()) << bad;
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
