#include "base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>

#include "tests/support/temp_folder.h"

namespace assay {
namespace {

TEST(ReadFile, GivesTheWholeContent) {
  TempFolder folder;
  const std::string content = std::string("a\0b\n", 4) + std::string(200'000, 'x');
  ASSERT_TRUE(write_file_atomically(folder.file("f"), content).ok());
  EXPECT_EQ(read_file(folder.file("f")).value(), content);
  EXPECT_EQ(read_file(folder.file("f"), content.size()).value(), content) << "exactly at the limit";
}

TEST(ReadFile, ErrorsNameThePathAndTheReason) {
  TempFolder folder;
  const std::string path = folder.file("f");
  const auto missing = read_file(path);
  ASSERT_FALSE(missing.ok());
  EXPECT_EQ(missing.error().code, ErrorCode::not_found);
  EXPECT_EQ(missing.error().message, "cannot open " + path + ": No such file or directory");

  const auto is_folder = read_file(folder.path());
  ASSERT_FALSE(is_folder.ok());
  EXPECT_EQ(is_folder.error().message, folder.path() + " is a folder, not a file");

  ASSERT_TRUE(write_file_atomically(path, "123456").ok());
  const auto large = read_file(path, 5);
  ASSERT_FALSE(large.ok());
  EXPECT_EQ(large.error().code, ErrorCode::resource_exhausted);
  EXPECT_EQ(large.error().message, path + " is larger than 5 bytes");
}

TEST(WriteFile, ReplacesTheContentAndLeavesNothingElse) {
  TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder.file("f"), "old and long").ok());
  ASSERT_TRUE(write_file_atomically(folder.file("f"), "new", 0600).ok());
  EXPECT_EQ(read_file(folder.file("f")).value(), "new");
  struct stat info {};
  ASSERT_EQ(::stat(folder.file("f").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  const std::filesystem::directory_iterator files(folder.path());
  EXPECT_EQ(std::distance(begin(files), end(files)), 1);
}

TEST(WriteFile, AFailureLeavesNoTemporaryFile) {
  TempFolder folder;
  std::filesystem::create_directory(folder.file("taken"));
  const Status over_folder = write_file_atomically(folder.file("taken"), "x");
  ASSERT_FALSE(over_folder.ok());
  EXPECT_EQ(over_folder.error().message, "cannot rename to " + folder.file("taken") + ": Is a directory");
  EXPECT_FALSE(std::filesystem::exists(folder.file("taken.tmp")));

  const Status no_folder = write_file_atomically(folder.file("none/f"), "x");
  ASSERT_FALSE(no_folder.ok());
  EXPECT_EQ(no_folder.error().code, ErrorCode::not_found);
  EXPECT_EQ(no_folder.error().message, "cannot create " + folder.file("none/f.tmp") + ": No such file or directory");
}

TEST(MakeFolders, MakesWhatIsMissing) {
  TempFolder folder;
  ASSERT_TRUE(make_folders(folder.file("a/b/c"), 0700).ok());
  ASSERT_TRUE(make_folders(folder.file("a/b/c/")).ok()) << "what exists is fine";
  EXPECT_TRUE(std::filesystem::is_directory(folder.file("a/b/c")));
  struct stat info {};
  ASSERT_EQ(::stat(folder.file("a/b").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST(MakeFolders, RefusesAFileOrADanglingLinkInTheWay) {
  TempFolder folder;
  ASSERT_TRUE(write_file_atomically(folder.file("f"), "").ok());
  const Status file = make_folders(folder.file("f"));
  ASSERT_FALSE(file.ok());
  EXPECT_EQ(file.error().message, folder.file("f") + " exists and is not a folder");
  EXPECT_FALSE(make_folders(folder.file("f/g")).ok());

  std::filesystem::create_symlink("nowhere", folder.file("link"));
  const Status link = make_folders(folder.file("link"));
  ASSERT_FALSE(link.ok());
  EXPECT_THAT(link.error().message, ::testing::StartsWith("cannot create folder " + folder.file("link")));
}

// FIPS 180-4 examples; the check value of CRC-32 in the catalogue of parametrised CRC algorithms.
TEST(Digests, AgreeWithPublishedValues) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(crc32("123456789"), 0xCBF43926u);
  EXPECT_EQ(crc32("456789", crc32("123")), 0xCBF43926u) << "in pieces";
  EXPECT_EQ(crc32(""), 0u);
}

}  // namespace
}  // namespace assay
