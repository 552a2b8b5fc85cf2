// What routers are sent of pages: which events they become, byte for byte, and what is left out once some
// were lost. That real readers understand it is tests/e2e/cache_events_test.py.
#include "server/cache_events/page_names.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"
#include "server/cache_events/message_pack.h"

namespace sessa {
namespace {

PageEvent Stored(int32_t page, int32_t parent, std::vector<int32_t> tokens, std::string salt = "") {
  return {page, parent, true, std::move(tokens), std::move(salt)};
}
PageEvent Removed(int32_t page) { return {page, -1, false, {}, {}}; }

std::string Batch(double time, const std::vector<MessagePack>& events) {
  MessagePack batch;
  batch.Array(2);
  batch.Double(time);
  batch.Array(static_cast<uint32_t>(events.size()));
  for (const MessagePack& event : events) batch.Append(event.bytes());
  return batch.bytes();
}

// The 9 bytes of the first name in the first event.
std::string NameIn(const std::string& batch) { return batch.substr(batch.find("block_hashes") + 13, 9); }

MessagePack StoredEvent(const std::vector<std::string>& names, const std::string& parent,
                        const std::vector<int>& tokens) {
  MessagePack out;
  out.Map(8);
  for (const char* text : {"type", "BlockStored", "block_hashes"}) out.String(text);
  out.Array(static_cast<uint32_t>(names.size()));
  for (const std::string& name : names) out.Append(name);
  out.String("parent_block_hash");
  parent.empty() ? out.Nil() : out.Append(parent);
  out.String("token_ids");
  out.Array(static_cast<uint32_t>(tokens.size()));
  for (int token : tokens) out.Integer(token);
  out.String("block_size");
  out.Integer(2);
  for (const char* text : {"medium", "CPU", "lora_id"}) out.String(text);
  out.Nil();
  out.String("lora_name");
  out.Nil();
  return out;
}

TEST(MessagePackTest, EachSizeHasItsFormat) {
  const auto array = [](uint32_t size) {
    MessagePack out;
    out.Array(size);
    return out.bytes();
  };
  EXPECT_EQ(array(15), "\x9f");
  EXPECT_EQ(array(16), std::string("\xdc\0\x10", 3));
  EXPECT_EQ(array(65535), "\xdc\xff\xff");
  EXPECT_EQ(array(65536), std::string("\xdd\0\x01\0\0", 5));
  const auto map = [](uint32_t size) {
    MessagePack out;
    out.Map(size);
    return out.bytes();
  };
  EXPECT_EQ(map(15), "\x8f");
  EXPECT_EQ(map(16), std::string("\xde\0\x10", 3));
  const auto integer = [](uint64_t value) {
    MessagePack out;
    out.Integer(value);
    return out.bytes();
  };
  EXPECT_EQ(integer(127), "\x7f");
  EXPECT_EQ(integer(128), std::string("\xcf\0\0\0\0\0\0\0\x80", 9));
  EXPECT_EQ(integer(~uint64_t{0}), "\xcf\xff\xff\xff\xff\xff\xff\xff\xff");
  const auto text = [](size_t size) {
    MessagePack out;
    out.String(std::string(size, 'x'));
    return out.bytes().substr(0, out.bytes().size() - size);
  };
  EXPECT_EQ(text(31), "\xbf");
  EXPECT_EQ(text(32), std::string("\xda\0\x20", 3));
  MessagePack out;
  out.Double(1.5);
  EXPECT_EQ(out.bytes(), std::string("\xcb\x3f\xf8\0\0\0\0\0\0", 9));
}

TEST(PageNamesTest, ARunOfPagesIsOneEvent) {
  // Names are learnt from batches of one page each, with the same pages elsewhere: they do not depend on page
  // numbers.
  PageNames names("CPU"), others("CPU");
  const std::string first = others.Encode({Stored(0, -1, {1, 2})}, false, 1),
                    second = others.Encode({Stored(1, 0, {3, 300})}, false, 1),
                    other = others.Encode({Stored(2, -1, {5, 6})}, false, 1);
  EXPECT_EQ(first, Batch(1, {StoredEvent({NameIn(first)}, "", {1, 2})}));
  EXPECT_EQ(second, Batch(1, {StoredEvent({NameIn(second)}, NameIn(first), {3, 300})}));
  EXPECT_EQ(names.Encode({Stored(7, -1, {1, 2}), Stored(3, 7, {3, 300}), Stored(9, -1, {5, 6})}, false, 2),
            Batch(2, {StoredEvent({NameIn(first), NameIn(second)}, "", {1, 2, 3, 300}),
                      StoredEvent({NameIn(other)}, "", {5, 6})}));
}

TEST(PageNamesTest, SaltAndTokensMakeTheName) {
  const auto name = [](const PageEvent& event) { return PageNames("CPU").Encode({event}, false, 0); };
  EXPECT_EQ(name(Stored(1, -1, {1})), name(Stored(2, -1, {1})));
  EXPECT_NE(name(Stored(1, -1, {1}, "alice")), name(Stored(1, -1, {1}, "bob")));
}

TEST(PageNamesTest, RemovedPagesAreNamedAsTheyWere) {
  PageNames names("GPU");
  const std::string stored = names.Encode({Stored(4, -1, {1})}, false, 0);
  MessagePack removed;
  removed.Map(3);
  for (const char* text : {"type", "BlockRemoved", "block_hashes"}) removed.String(text);
  removed.Array(1);
  removed.Append(NameIn(stored));
  for (const char* text : {"medium", "GPU"}) removed.String(text);
  EXPECT_EQ(names.Encode({Removed(4)}, false, 7), Batch(7, {removed}));
  EXPECT_EQ(names.Encode({Removed(4)}, false, 0), "") << "it is not known any more";
  // A page that came, went and came with other tokens is told of in this order.
  const std::string all = names.Encode({Stored(4, -1, {1}), Removed(4), Stored(4, -1, {2})}, false, 0);
  EXPECT_LT(all.find("BlockStored"), all.find("BlockRemoved"));
  EXPECT_LT(all.find("BlockRemoved"), all.rfind("BlockStored"));
}

TEST(PageNamesTest, AfterALossNobodyBelievesInWhatWent) {
  PageNames names("CPU");
  names.Encode({Stored(1, -1, {1, 2}), Stored(2, 1, {3, 4})}, false, 0);
  MessagePack cleared;
  cleared.Map(1);
  for (const char* text : {"type", "AllBlocksCleared"}) cleared.String(text);
  EXPECT_EQ(names.Encode({}, /*lost=*/true, 5), Batch(5, {cleared}));
  // What continues a forgotten page, and its going, mean nothing to who has forgotten.
  EXPECT_EQ(names.Encode({Stored(3, 2, {5, 6}), Stored(4, 3, {7, 8}), Removed(2), Removed(3)}, false, 0), "");
  const std::string again = names.Encode({Stored(2, -1, {9, 9})}, false, 0);
  EXPECT_EQ(again, Batch(0, {StoredEvent({NameIn(again)}, "", {9, 9})}));
}

}  // namespace
}  // namespace sessa
