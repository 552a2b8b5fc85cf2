#include "server/cache_events/page_names.h"

#include <optional>

#include "openssl/sha.h"
#include "server/cache_events/message_pack.h"

namespace sessa {
namespace {

// A run of pages, each of which continues the one before, in the making.
struct Run {
  std::vector<uint64_t> names;
  std::optional<uint64_t> parent;
  std::vector<int32_t> tokens;
  size_t page_size = 0;
  int32_t last_page = -1;
};

void WriteNames(const std::vector<uint64_t>& names, MessagePack* out) {
  out->String("block_hashes");
  out->Array(static_cast<uint32_t>(names.size()));
  for (uint64_t name : names) out->Integer(name);
}

void Begin(const char* type, uint32_t num_fields, MessagePack* out) {
  out->Map(1 + num_fields);
  out->String("type");
  out->String(type);
}

void WriteStored(const Run& run, const std::string& medium, MessagePack* out) {
  Begin("BlockStored", 7, out);
  WriteNames(run.names, out);
  out->String("parent_block_hash");
  run.parent.has_value() ? out->Integer(*run.parent) : out->Nil();
  out->String("token_ids");
  out->Array(static_cast<uint32_t>(run.tokens.size()));
  for (int32_t token : run.tokens) out->Integer(static_cast<uint64_t>(token));
  out->String("block_size");
  out->Integer(run.page_size);
  out->String("medium");
  out->String(medium);
  for (const char* none : {"lora_id", "lora_name"}) {
    out->String(none);
    out->Nil();
  }
}

void WriteRemoved(const std::vector<uint64_t>& names, const std::string& medium, MessagePack* out) {
  Begin("BlockRemoved", 2, out);
  WriteNames(names, out);
  out->String("medium");
  out->String(medium);
}

}  // namespace

uint64_t PageNames::NameOf(const PageEvent& event) const {
  std::string text;
  const auto append = [&text](const void* data, size_t size) {
    text.append(static_cast<const char*>(data), size);
  };
  if (event.parent < 0) {
    append(event.salt.data(), event.salt.size());
  } else {
    append(&names_.at(event.parent), sizeof(uint64_t));
  }
  append(event.tokens.data(), event.tokens.size() * sizeof(int32_t));
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  uint64_t name = 0;
  for (int i = 0; i < 8; ++i) name = name << 8 | digest[i];
  return name;
}

std::string PageNames::Encode(const std::vector<PageEvent>& events, bool lost, double unix_seconds) {
  MessagePack written;
  uint32_t num_written = 0;
  Run run;
  std::vector<uint64_t> removed;
  // At most one of the two is in the making, as their order counts.
  const auto flush = [&] {
    if (!run.names.empty()) WriteStored(run, medium_, &written);
    if (!removed.empty()) WriteRemoved(removed, medium_, &written);
    num_written += static_cast<uint32_t>(!run.names.empty()) + static_cast<uint32_t>(!removed.empty());
    run = Run();
    removed.clear();
  };
  if (lost) {
    names_.clear();
    Begin("AllBlocksCleared", 0, &written);
    ++num_written;
  }
  for (const PageEvent& event : events) {
    if (!event.stored) {
      const auto name = names_.find(event.page);
      if (name == names_.end()) continue;
      if (!run.names.empty()) flush();
      removed.push_back(name->second);
      names_.erase(name);
      continue;
    }
    if (event.parent >= 0 && !names_.contains(event.parent)) continue;
    const uint64_t name = NameOf(event);
    if (run.names.empty() || run.last_page != event.parent) {
      flush();
      if (event.parent >= 0) run.parent = names_.at(event.parent);
      run.page_size = event.tokens.size();
    }
    names_[event.page] = name;
    run.names.push_back(name);
    run.tokens.insert(run.tokens.end(), event.tokens.begin(), event.tokens.end());
    run.last_page = event.page;
  }
  flush();
  if (num_written == 0) return "";
  MessagePack batch;
  batch.Array(2);
  batch.Double(unix_seconds);
  batch.Array(num_written);
  batch.Append(written.bytes());
  return batch.bytes();
}

}  // namespace sessa
