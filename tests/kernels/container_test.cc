// Limits of cgroups, from folders of files such as the kernel shows.
#include "kernels/container.h"

#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sessa {
namespace {

using ::testing::ElementsAre;
using ::testing::Eq;
using ::testing::Optional;

class ContainerTest : public ::testing::Test {
 protected:
  ContainerTest() : root_(::testing::TempDir() + "cgroup") { std::filesystem::remove_all(root_); }
  ~ContainerTest() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    const std::filesystem::path file = root_ + "/" + path;
    std::filesystem::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }
  std::vector<std::string> Folders(const std::string& self) {
    Write("self", self);
    return CgroupFolders(root_, root_ + "/self");
  }

  const std::string root_;
};

TEST_F(ContainerTest, FoldersFromTheOwnToTheRoot) {
  EXPECT_THAT(Folders("0::/system.slice/sessa-serve.service\n"),
              ElementsAre(root_ + "/system.slice/sessa-serve.service", root_ + "/system.slice", root_));
  EXPECT_THAT(Folders("0::/\n"), ElementsAre(root_));                         // in a container
  EXPECT_THAT(Folders("4:memory:/docker/1\n1:cpu:/\n"), ElementsAre(root_));  // version 1
  EXPECT_THAT(CgroupFolders(root_, root_ + "/none"), ElementsAre(root_));
}

TEST_F(ContainerTest, NoLimitIsNone) {
  EXPECT_THAT(CgroupFreeMemory({root_}), Eq(std::nullopt));
  Write("memory.max", "max\n");
  Write("memory.current", "1000\n");
  EXPECT_THAT(CgroupFreeMemory({root_}), Eq(std::nullopt));
  Write("memory.max", "much\n");
  EXPECT_THAT(CgroupFreeMemory({root_}), Eq(std::nullopt));
}

TEST_F(ContainerTest, WhatTheLimitLeaves) {
  Write("memory.max", "4294967296\n");
  Write("memory.current", "1000000000\n");
  EXPECT_THAT(CgroupFreeMemory({root_}), Optional(3294967296));
  // Weights that were read stay in the cache of files: they are no reason for less state.
  Write("memory.stat",
        "anon 250000000\nfile 750000000\nshmem 50000000\ninactive_file 600000000\nactive_file 100000000\n");
  EXPECT_THAT(CgroupFreeMemory({root_}), Optional(3994967296));
  Write("memory.current", "4294967297\n");
  Write("memory.stat", "");
  EXPECT_THAT(CgroupFreeMemory({root_}), Optional(0));
}

TEST_F(ContainerTest, TheTightestOfThoseAroundItCounts) {
  for (auto [path, limit] : {std::pair{"pods/a/", "3000\n"}, {"pods/", "1000\n"}, {"", "2000\n"}}) {
    Write(std::string(path) + "memory.max", limit);
    Write(std::string(path) + "memory.current", "100\n");
  }
  EXPECT_THAT(CgroupFreeMemory(Folders("0::/pods/a")), Optional(900));
  EXPECT_THAT(CgroupFreeMemory(Folders("0::/elsewhere")), Optional(1900));  // a path of the host, seen inside
}

}  // namespace
}  // namespace sessa
