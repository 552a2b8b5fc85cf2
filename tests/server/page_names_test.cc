// What routers are sent of pages: which events they become, byte for byte, and what is left out once some
// were lost. That real readers understand it is tests/e2e/cache_events_test.py.
#include "server/cache_events/page_names.h"

#include <string>
#include <vector>

#include "absl/strings/match.h"
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
  for (const MessagePack& event : events) batch.Append(event);
  return batch.bytes();
}

bool Mentions(const std::string& batch, absl::string_view what) { return absl::StrContains(batch, what); }

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
  // The names are learnt from batches of one page each, with the same pages elsewhere: they do not depend on
  // page numbers.
  PageNames names("CPU"), others("CPU");
  const std::string together =
      names.Encode({Stored(7, -1, {1, 2}), Stored(3, 7, {3, 300}), Stored(9, -1, {5, 6})}, false, 1);
  const std::string first = others.Encode({Stored(0, -1, {1, 2})}, false, 1),
                    second = others.Encode({Stored(1, 0, {3, 300})}, false, 1);
  const auto name_in = [](const std::string& batch) {  // the 9 bytes of the first name
    return batch.substr(batch.find("BlockStored") + 12, 9);
  };
  const auto end_in = [](const std::string& batch) { return batch.substr(batch.size() - 6); };
  const std::string chain = "BlockStored\x92" + name_in(first) + name_in(second) + "\xc0\x94\x01\x02\x03" +
                            std::string("\xcf\0\0\0\0\0\0\x01\x2c", 9) +
                            "\x02\xc0\xa3"
                            "CPU";
  EXPECT_TRUE(Mentions(together, chain));
  EXPECT_EQ(together.substr(0, 10), std::string("\x92\xcb\x3f\xf0\0\0\0\0\0\0", 10));
  EXPECT_EQ(together[10], '\x92');  // two events: the third page begins another prompt
  EXPECT_TRUE(Mentions(second, "\x91" + name_in(second) + name_in(first) + "\x92")) << "its parent's name";
  EXPECT_EQ(end_in(second),
            "\x02\xc0\xa3"
            "CPU");
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
  removed.Array(3);
  removed.String("BlockRemoved");
  removed.Array(1);
  std::string expected = removed.bytes() + stored.substr(stored.find("BlockStored") + 12, 9) +
                         "\xa3"
                         "GPU";
  EXPECT_EQ(names.Encode({Removed(4)}, false, 0).substr(11), expected);
  EXPECT_EQ(names.Encode({Removed(4)}, false, 0), "") << "it is not known any more";
  // A page that came and went is told of in this order.
  const std::string both = names.Encode({Stored(4, -1, {1}), Removed(4), Stored(4, -1, {2})}, false, 0);
  EXPECT_EQ(both[10], '\x93');
  EXPECT_LT(both.find("BlockStored"), both.find("BlockRemoved"));
  EXPECT_LT(both.find("BlockRemoved"), both.rfind("BlockStored"));
}

TEST(PageNamesTest, AfterALossNobodyBelievesInWhatWent) {
  PageNames names("CPU");
  names.Encode({Stored(1, -1, {1}), Stored(2, 1, {2})}, false, 0);
  MessagePack cleared;
  cleared.Array(1);
  cleared.String("AllBlocksCleared");
  EXPECT_EQ(names.Encode({}, /*lost=*/true, 5), Batch(5, {cleared}));
  // What continues a forgotten page, and its going, mean nothing to who has forgotten.
  EXPECT_EQ(names.Encode({Stored(3, 2, {3}), Stored(4, 3, {4}), Removed(2), Removed(3)}, false, 0), "");
  EXPECT_TRUE(Mentions(names.Encode({Stored(2, -1, {9}), Stored(3, 2, {3})}, false, 0), "BlockStored\x92"));
}

}  // namespace
}  // namespace sessa
