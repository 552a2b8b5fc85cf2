// The guard of HTTP/2 connections, fed with frames: each bound at its edge, in time and in proportion to what
// the server sends, in whatever pieces the bytes come.
#include <chrono>
#include <optional>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "server/net/http2_guard.h"

namespace sessa {
namespace {

constexpr char kPreface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum Type {
  kData,
  kHeaders,
  kPriority,
  kRst,
  kSettings,
  kPush,
  kPing,
  kGoAwayType,
  kWindowUpdate,
  kContinuation
};
constexpr int kEndStream = 1, kEndHeaders = 4;

std::string Frame(int type, int flags, uint32_t stream, size_t length = 0) {
  std::string frame = {static_cast<char>(length >> 16), static_cast<char>(length >> 8),
                       static_cast<char>(length), static_cast<char>(type), static_cast<char>(flags)};
  for (int shift : {24, 16, 8, 0}) frame += static_cast<char>(stream >> shift);
  return frame + std::string(length, 'x');
}

// A DATA frame of the open stream 1.
std::string Data(const std::string& payload, int flags = 0) {
  return Frame(kData, flags, 1).replace(2, 1, 1, static_cast<char>(payload.size())) + payload;
}

std::string Prefix(uint32_t length) {
  std::string prefix = {'\0'};
  for (int shift : {24, 16, 8, 0}) prefix += static_cast<char>(length >> shift);
  return prefix;
}

class Http2GuardTest : public ::testing::Test {
 protected:
  void SetUp() override { Renew(); }
  void Renew() {
    guard_.emplace(limits_, now_);
    EXPECT_EQ(Client(kPreface + Frame(kSettings, 0, 0, 6)), std::nullopt);
    EXPECT_TRUE(guard_->started());
  }
  std::optional<Cut> Client(const std::string& bytes) { return guard_->OnClientBytes(bytes, now_); }
  std::optional<Cut> Server(const std::string& bytes) { return guard_->OnServerBytes(bytes); }
  // How many of `frame` are let through now; the connection is over then.
  int Count(const std::string& frame) {
    for (int count = 0; count < 100000; ++count) {
      if (cut_ = Client(frame); cut_.has_value()) return count;
    }
    return -1;
  }

  Http2Limits limits_ = {.max_frame_bytes = 100,
                         .max_header_block_bytes = 150,
                         .max_continuations = 2,
                         .max_streams = 3,
                         .resets = {10, 2},
                         .settings = {11, 2},  // the first took one
                         .pings = {10, 2},
                         .empty_frames = {10, 2},
                         .window_updates = {10, 2},
                         .other_frames = {10, 2}};
  Http2Guard::Clock::time_point now_;
  std::optional<Http2Guard> guard_;
  std::optional<Cut> cut_;
};

TEST_F(Http2GuardTest, EachKindOfFrameHasItsBurstAndItsRate) {
  const std::pair<std::string, Cut> kinds[] = {
      {Frame(kRst, 0, 1, 4), Cut::kResets},
      {Frame(kSettings, 1, 0), Cut::kSettings},
      {Frame(kPing, 0, 0, 8), Cut::kPings},
      {Frame(kData, 0, 1), Cut::kEmptyFrames},
      {Frame(kWindowUpdate, 0, 0, 4), Cut::kWindowUpdates},
      {Frame(kPriority, 0, 1, 5), Cut::kOtherFrames},
      {Frame(0xfa, 0, 0, 3), Cut::kOtherFrames},
  };
  for (const auto& [frame, reason] : kinds) {
    Renew();
    for (int i = 0; i < 10; ++i) ASSERT_EQ(Client(frame), std::nullopt) << Name(reason);
    now_ += std::chrono::milliseconds(2500);
    EXPECT_EQ(Count(frame), 5) << Name(reason);
    EXPECT_EQ(cut_, reason);
    Renew();
    now_ += std::chrono::hours(1);
    EXPECT_EQ(Count(frame), reason == Cut::kSettings ? 11 : 10) << "no more than the burst is saved";
  }
}

TEST_F(Http2GuardTest, DataOfTheServerEarnsPingsAndWindowUpdates) {
  EXPECT_EQ(Server(Frame(kData, 0, 1, 50) + Frame(kData, 0, 1, 50)), std::nullopt);
  EXPECT_EQ(Count(Frame(kPing, 0, 0, 8)), 10 + 2);
  Renew();
  EXPECT_EQ(Server(Frame(kData, 0, 1, 50) + Frame(kData, 0, 1, 50)), std::nullopt);
  EXPECT_EQ(Count(Frame(kWindowUpdate, 0, 0, 4)), 10 + 2 * 10);
}

TEST_F(Http2GuardTest, StreamsAreCountedUntilTheyEnd) {
  const auto open = [this](uint32_t id) { return Client(Frame(kHeaders, kEndHeaders | kEndStream, id, 10)); };
  for (uint32_t id : {1, 3, 5}) EXPECT_EQ(open(id), std::nullopt);
  EXPECT_EQ(guard_->num_streams(), 3u);
  Server(Frame(kHeaders, kEndHeaders, 1, 5) + Frame(kData, 0, 1, 5));
  EXPECT_EQ(guard_->num_streams(), 3u) << "its trailers are still to come";
  Server(Frame(kHeaders, kEndHeaders | kEndStream, 1, 5));
  EXPECT_EQ(open(7), std::nullopt);
  EXPECT_EQ(Client(Frame(kRst, 0, 3, 4)), std::nullopt);
  EXPECT_EQ(open(9), std::nullopt);
  EXPECT_EQ(Server(Frame(kRst, 0, 5, 4)), std::nullopt);
  EXPECT_EQ(open(11), std::nullopt);
  EXPECT_EQ(open(13), Cut::kStreams);
}

TEST_F(Http2GuardTest, StreamsThatTheServerResetsCountAsTheClients) {
  for (uint32_t id = 1; id <= 19; id += 2) {
    ASSERT_EQ(Client(Frame(kHeaders, kEndHeaders, id, 10)), std::nullopt);
    EXPECT_EQ(Server(Frame(kRst, 0, id, 4)), std::nullopt);
    // After its end, a reset says only that the rest is not wanted.
    EXPECT_EQ(Server(Frame(kRst, 0, id, 4)), std::nullopt);
  }
  ASSERT_EQ(Client(Frame(kHeaders, kEndHeaders, 21, 10)), std::nullopt);
  EXPECT_EQ(Server(Frame(kRst, 0, 21, 4)), Cut::kResets);
}

TEST_F(Http2GuardTest, HeaderBlocksAreBounded) {
  EXPECT_EQ(Client(Frame(kHeaders, 0, 1, 75) + Frame(kContinuation, 0, 1, 74) +
                   Frame(kContinuation, kEndHeaders, 1, 1)),
            std::nullopt);
  EXPECT_EQ(Client(Frame(kHeaders, 0, 3, 75) + Frame(kContinuation, kEndHeaders, 3, 76)), Cut::kHeaderBytes);
  Renew();
  EXPECT_EQ(Client(Frame(kHeaders, 0, 1, 1)), std::nullopt);
  EXPECT_EQ(Count(Frame(kContinuation, 0, 1, 1)), 2);
  EXPECT_EQ(cut_, Cut::kHeaderBytes);
}

TEST_F(Http2GuardTest, NothingComesBetweenHeadersAndTheirContinuation) {
  for (const std::string& between :
       {Frame(kPing, 0, 0, 8), Frame(kHeaders, kEndHeaders, 3, 1), Frame(kContinuation, 0, 3, 1)}) {
    Renew();
    EXPECT_EQ(Client(Frame(kHeaders, 0, 1, 1)), std::nullopt);
    EXPECT_EQ(Client(between), Cut::kProtocol);
  }
  EXPECT_EQ(Http2Guard(limits_, now_).OnClientBytes(kPreface + Frame(kContinuation, 4, 1, 1), now_),
            Cut::kProtocol);
}

TEST_F(Http2GuardTest, FramesAreBounded) {
  EXPECT_EQ(Client(Frame(kData, 0, 1, 100)), std::nullopt);
  EXPECT_EQ(Client(Frame(kData, 0, 1, 101)), Cut::kFrameBytes);
}

TEST_F(Http2GuardTest, MessagesAreBoundedByWhatTheirPrefixSays) {
  limits_.max_message_bytes = 30;
  const auto open = [this] {
    Renew();
    EXPECT_EQ(Client(Frame(kHeaders, kEndHeaders, 1, 10)), std::nullopt);
  };
  open();
  EXPECT_EQ(Client(Data(Prefix(30))), std::nullopt);
  open();
  EXPECT_EQ(Client(Data(Prefix(31))), Cut::kMessageBytes);
  // The second message of a frame, a prefix cut over frames, and one behind padding.
  open();
  EXPECT_EQ(Client(Data(Prefix(3) + "abc" + Prefix(0) + Prefix(31))), Cut::kMessageBytes);
  open();
  EXPECT_EQ(Client(Data(Prefix(31).substr(0, 3)) + Data(Prefix(31).substr(3))), Cut::kMessageBytes);
  open();
  EXPECT_EQ(Client(Data("\x04" + Prefix(31) + "pads", 8)), Cut::kMessageBytes);
  open();
  EXPECT_EQ(Client(Data(std::string("\x05", 1) + Prefix(30) + std::string(5, '\xff'), 8) +
                   Data(std::string(30, '\xff')) + Data(Prefix(0))),
            std::nullopt);
  open();
  EXPECT_EQ(Client(Data("\x05"
                        "pads",
                        8)),
            Cut::kProtocol)
      << "more padding than there is";
  // In whatever pieces.
  const std::string bytes = Data(Prefix(2) + "ab" + Prefix(31));
  for (size_t piece : {1, 2, 3, 5, 8}) {
    open();
    std::optional<Cut> cut;
    for (size_t at = 0; at < bytes.size() && !cut.has_value(); at += piece)
      cut = Client(bytes.substr(at, piece));
    EXPECT_EQ(cut, Cut::kMessageBytes) << piece;
  }
}

TEST_F(Http2GuardTest, WhatIsNotHttp2EndsAtItsFirstWrongByte) {
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\n"), std::string("\x16\x03\x01"),
        absl::StrCat(std::string(kPreface).substr(0, 20), "y"), kPreface + Frame(kPing, 0, 0, 8)}) {
    EXPECT_EQ(Http2Guard(limits_, now_).OnClientBytes(bytes, now_), Cut::kProtocol) << bytes;
  }
}

TEST_F(Http2GuardTest, PiecesMakeNoDifference) {
  const std::string bytes = kPreface + Frame(kSettings, 0, 0, 6) + Frame(kHeaders, 0, 1, 70) +
                            Frame(kContinuation, kEndHeaders, 1, 20) +
                            Data(Prefix(94) + std::string(94, 'x'), kEndStream) + Frame(kPing, 0, 0, 8);
  for (size_t piece : {1, 2, 7, 9, 10, 33}) {
    Http2Guard guard(limits_, now_);
    for (size_t at = 0; at < bytes.size(); at += piece)
      ASSERT_EQ(guard.OnClientBytes(absl::string_view(bytes).substr(at, piece), now_), std::nullopt);
    EXPECT_TRUE(guard.started());
    EXPECT_EQ(guard.num_streams(), 1u);
    EXPECT_FALSE(guard.unfinished_since().has_value());
  }
}

TEST_F(Http2GuardTest, TellsSinceWhenAFrameIsUnfinished) {
  EXPECT_FALSE(guard_->unfinished_since().has_value());
  now_ += std::chrono::seconds(1);
  const auto begun = now_;
  const std::string block = Frame(kHeaders, 0, 1, 20);
  EXPECT_EQ(Client(block.substr(0, 3)), std::nullopt);
  EXPECT_EQ(guard_->unfinished_since(), begun);
  now_ += std::chrono::seconds(1);
  EXPECT_EQ(Client(block.substr(3)), std::nullopt);
  EXPECT_EQ(guard_->unfinished_since(), begun) << "the block goes on";
  EXPECT_EQ(Client(Frame(kContinuation, kEndHeaders, 1, 5)), std::nullopt);
  EXPECT_FALSE(guard_->unfinished_since().has_value());
}

TEST(GoAwayTest, IsAFrameOfItsOwn) {
  const std::string frame = GoAway(Cut::kResets, false);
  EXPECT_EQ(frame.substr(0, 9), Frame(kGoAwayType, 0, 0, 8 + 6).substr(0, 9));
  EXPECT_EQ(frame.substr(13), std::string("\0\0\0\x0b", 4) + "resets");
  EXPECT_EQ(GoAway(Cut::kResets, true), Frame(kSettings, 0, 0) + frame);
}

}  // namespace
}  // namespace sessa
