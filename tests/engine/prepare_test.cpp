#include "engine/data/prepare.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>

#include "base/file.h"
#include "base/limits.h"
#include "engine/data/shard.h"
#include "engine/data/text_source.h"
#include "tests/support/kill_points.h"
#include "tests/support/put_file.h"
#include "tests/support/temp_folder.h"

namespace assay {
namespace {

namespace fs = std::filesystem;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

// Text of a few hundred different words, with indentation, digits and letters beyond ASCII.
std::string some_text(int seed, int lines) {
  std::string text;
  for (int line = 0; line < lines; ++line) {
    text += std::string(static_cast<size_t>(line % 3) * 4, ' ');
    for (int word = 0; word < 8; ++word) {
      const int id = (seed * 131 + line * 17 + word * word * 29) % 300;
      text +=
          "word" + std::string(1, static_cast<char>('a' + id % 26)) + std::string(1, static_cast<char>('a' + id / 26));
      text += word == 3 ? " caf\xC3\xA9 " : word == 5 ? "  42, " : " ";
    }
    text += "\n";
  }
  return text;
}

void put_gz(const std::string& path, const std::string& text) {
  gzFile file = ::gzopen(path.c_str(), "wb");
  ASSERT_EQ(::gzwrite(file, text.data(), static_cast<unsigned>(text.size())), static_cast<int>(text.size()));
  ASSERT_EQ(::gzclose(file), Z_OK);
}

std::vector<uint16_t> tokens_of(const ShardInfo& shard) {
  const std::string bytes = read_file(shard.path).value().substr(shard_header_bytes);
  std::vector<uint16_t> tokens(bytes.size() / 2);
  std::memcpy(tokens.data(), bytes.data(), bytes.size());
  return tokens;
}

std::map<std::string, std::string> folder_content(const std::string& folder) {
  std::map<std::string, std::string> content;
  for (const auto& entry : fs::directory_iterator(folder))
    content[entry.path().filename().string()] = read_file(entry.path().string()).value();
  return content;
}

class PrepareTest : public testing::Test {
 protected:
  void SetUp() override {
    fs::create_directories(text_ + "/deep");
    for (int i = 0; i < 10; ++i) put_file(text_ + "/doc" + std::to_string(i) + ".txt", some_text(i, 40));
  }
  PrepareOptions options() const {
    PrepareOptions o;
    o.inputs = {text_};
    o.output_folder = output_;
    o.vocab_size = 400;
    o.val_fraction = 0.2;
    return o;
  }
  PrepareResult prepare(const PrepareOptions& o) {
    said_.clear();
    const auto result = prepare_data(o, [&](const std::string& line) { said_.push_back(line); });
    EXPECT_TRUE(result.ok()) << result.error().message;
    return result.ok() ? *result : PrepareResult{};
  }
  std::string error_of(const PrepareOptions& o) {
    const auto result = prepare_data(o, [](const std::string&) {});
    EXPECT_FALSE(fs::exists(output_ + ".preparing"));
    return result.ok() ? "no error" : result.error().message;
  }
  // The documents of all shards of a kind, as text again: the stream cut at its separators.
  std::vector<std::string> documents(const std::vector<ShardInfo>& shards, int separator) const {
    sentencepiece::SentencePieceProcessor processor;
    EXPECT_TRUE(processor.Load(output_ + "/tokenizer.model").ok());
    std::vector<std::vector<int>> split;
    for (const ShardInfo& shard : shards)
      for (const uint16_t t : tokens_of(shard)) {
        if (t == separator)
          split.emplace_back();
        else if (!split.empty())
          split.back().push_back(t);
        else
          ADD_FAILURE() << "the stream does not begin with a separator";
      }
    std::vector<std::string> texts(split.size());
    for (size_t i = 0; i < split.size(); ++i) EXPECT_TRUE(processor.Decode(split[i], &texts[i]).ok());
    return texts;
  }
  TempFolder folder_;
  std::string text_ = folder_.file("text");
  std::string output_ = folder_.file("corpus");
  std::vector<std::string> said_;
};

TEST_F(PrepareTest, TheShardsHoldTheTextByteForByte) {
  const PrepareResult result = prepare(options());
  EXPECT_EQ(result.documents, 10);
  EXPECT_EQ(result.vocab_size, 400);
  const auto corpus = open_corpus(output_);
  ASSERT_TRUE(corpus.ok()) << corpus.error().message;
  EXPECT_EQ(corpus->train_tokens, result.train_tokens);
  EXPECT_EQ(corpus->val_tokens, result.val_tokens);
  std::vector<std::string> train, val;  // every 5th of the sorted files is for validation
  int64_t bytes = 0;
  for (int i = 0; i < 10; ++i) {
    (i % 5 == 4 ? val : train).push_back(some_text(i, 40));
    bytes += static_cast<int64_t>(some_text(i, 40).size());
  }
  EXPECT_EQ(documents(corpus->train, result.separator_id), train);
  EXPECT_EQ(documents(corpus->val, result.separator_id), val);
  EXPECT_EQ(result.text_bytes, bytes);
  EXPECT_THAT(result.files, ElementsAre(output_ + "/corpus_train_000001.bin", output_ + "/corpus_val_000000.bin",
                                        output_ + "/tokenizer.model"));
}

TEST_F(PrepareTest, TheSameTextGivesTheSameBytes) {
  prepare(options());
  PrepareOptions again = options();
  again.output_folder = folder_.file("again");
  prepare(again);
  EXPECT_EQ(folder_content(output_), folder_content(again.output_folder));
}

TEST_F(PrepareTest, CorpusJsonDescribesTheCorpus) {
  const PrepareResult result = prepare(options());
  const auto corpus = nlohmann::json::parse(read_file(output_ + "/corpus.json").value());
  EXPECT_EQ(corpus["vocab_size"], 400);
  EXPECT_EQ(corpus["separator_id"], result.separator_id);
  EXPECT_EQ(corpus["train_tokens"], result.train_tokens);
  EXPECT_EQ(corpus["val_tokens"], result.val_tokens);
  EXPECT_EQ(corpus["documents"], 10);
  EXPECT_EQ(corpus["tokenizer_sha256"], sha256_hex(read_file(output_ + "/tokenizer.model").value()));
  EXPECT_EQ(corpus["files"].size(), 3u);
}

TEST_F(PrepareTest, SaysWhatItDoes) {
  put_file(text_ + "/latin1.txt", "caf\xE9\n");
  const PrepareResult result = prepare(options());
  ASSERT_EQ(result.skipped.size(), 1u);
  EXPECT_THAT(said_, Contains(HasSubstr("in 10 documents of 10 files")));
  EXPECT_THAT(said_, Contains("skipped 1 of 11 files, which are not UTF-8 text; nothing of them is used:"));
  EXPECT_THAT(said_, Contains("  " + text_ + "/latin1.txt: line 1 holds the byte 0xE9, which is not UTF-8 there"));
  EXPECT_THAT(said_, Contains(HasSubstr("training a BPE tokenizer of 400 tokens")));
  EXPECT_THAT(said_, Contains(HasSubstr("encoded 100 %")));
}

TEST_F(PrepareTest, FindsTextFilesPlainAndCompressedInSortedOrder) {
  fs::remove_all(text_);
  fs::create_directories(text_ + "/deep/er");
  put_file(text_ + "/b.md", "b\n");
  put_gz(text_ + "/deep/er/c.rst.gz", "c\n");
  put_gz(text_ + "/a.txt.gz", "a\n");
  put_file(text_ + "/deep/data.bin", "not text by its name\n");
  put_file(text_ + "/deep/.gz", "nor this\n");
  fs::create_symlink(text_ + "/b.md", text_ + "/link.md");
  fs::create_directory_symlink(text_, text_ + "/deep/loop");
  fs::create_symlink("nowhere", text_ + "/dangling.md");
  put_file(folder_.file("named"), "named\n");
  const auto files = find_text_files({text_, folder_.file("named"), text_ + "/b.md"});
  ASSERT_TRUE(files.ok());
  EXPECT_THAT(files->paths,
              ElementsAre(folder_.file("named"), text_ + "/a.txt.gz", text_ + "/b.md", text_ + "/deep/er/c.rst.gz"));
  EXPECT_EQ(files->passed_over.size(), 5u);
  TextReader reader(files->paths, 0);
  for (const std::string expected : {"named\n", "a\n", "b\n", "c\n"}) EXPECT_EQ(reader.next().value()->text, expected);
  EXPECT_FALSE(reader.next().value().has_value());
}

TEST_F(PrepareTest, LargeFilesAreCutIntoDocumentsAtLineEnds) {
  std::string line = std::string(999, 'x') + "\n", text;
  while (text.size() <= 2 * limits::document_bytes) text += line;
  put_gz(folder_.file("large.txt.gz"), text);
  TextReader reader({folder_.file("large.txt.gz")}, 0);
  std::string joined;
  int documents = 0;
  while (const auto document = reader.next().value()) {
    EXPECT_LE(document->text.size(), limits::document_bytes);
    EXPECT_EQ(document->text.back(), '\n');
    EXPECT_EQ(document->line, 1 + std::count(joined.begin(), joined.end(), '\n'));
    joined += document->text;
    ++documents;
  }
  EXPECT_EQ(joined, text);
  EXPECT_EQ(documents, 3);
  EXPECT_EQ(reader.bytes(), static_cast<int64_t>(text.size()));
}

TEST_F(PrepareTest, TextWithoutLineEndsIsCutBetweenCharacters) {
  std::string text;
  while (text.size() <= limits::document_bytes) text += "x\xE2\x82\xAC\xF0\x9F\x98\x80";  // 1, 3 and 4 bytes
  for (const std::string shift : {"", "a", "ab", "abc"}) {
    put_file(folder_.file("one_line.txt"), shift + text);
    TextReader reader({folder_.file("one_line.txt")}, 0);
    std::string joined;
    while (const auto document = reader.next().value()) joined += document->text;
    EXPECT_EQ(joined, shift + text);
  }
}

TEST_F(PrepareTest, OnlyUtf8IsText) {
  int number = 0;
  const auto is_text = [&](const std::string& bytes) {
    const std::string path = folder_.file("utf8_" + std::to_string(number++));
    put_file(path, bytes);
    TextReader reader({path}, 0);
    const auto document = reader.next();
    EXPECT_EQ(document.ok(), reader.not_text().empty());
    return document.ok() && document->has_value();
  };
  for (const std::string good : {"a", "\xC2\x80", "\xDF\xBF", "\xE0\xA0\x80", "\xED\x9F\xBF", "\xEF\xBF\xBF",
                                 "\xF0\x90\x80\x80", "\xF4\x8F\xBF\xBF"})
    EXPECT_TRUE(is_text(good)) << testing::PrintToString(good);
  for (const std::string& bad :
       {std::string("\xC1\x81"), std::string("\x80"), std::string("\xE0\x9F\xBF"), std::string("\xED\xA0\x80"),
        std::string("\xF0\x8F\xBF\xBF"), std::string("\xF4\x90\x80\x80"), std::string("\xF5\x80\x80\x80"),
        std::string("a\xE2\x82"), std::string("\xFF"), std::string("\0a", 2)})
    EXPECT_FALSE(is_text(bad)) << testing::PrintToString(bad);
}

TEST_F(PrepareTest, ReadingStopsAtTheByteLimitAtALineEnd) {
  PrepareOptions o = options();
  o.max_bytes = static_cast<int64_t>(some_text(0, 40).size() + some_text(1, 40).size() / 2);
  const PrepareResult result = prepare(o);
  EXPECT_EQ(result.documents, 2);
  EXPECT_LE(result.text_bytes, o.max_bytes);
  EXPECT_GT(result.text_bytes, o.max_bytes - 200);
  const auto val = documents(open_corpus(output_)->val, result.separator_id);
  ASSERT_EQ(val.size(), 1u);  // the last of fewer than 5 documents
  EXPECT_EQ(val[0].back(), '\n');
}

TEST_F(PrepareTest, ShardsAreCutAtTheirSize) {
  PrepareOptions o = options();
  o.tokens_per_shard = 1000;
  const PrepareResult result = prepare(o);
  const auto corpus = open_corpus(output_);
  ASSERT_GT(corpus->train.size(), 2u);
  for (size_t i = 0; i + 1 < corpus->train.size(); ++i) EXPECT_EQ(corpus->train[i].tokens, 1000);
  EXPECT_EQ(documents(corpus->train, result.separator_id)[0], some_text(0, 40));
  EXPECT_EQ(corpus->train_tokens, result.train_tokens);
}

TEST_F(PrepareTest, NoValidationWhenAskedForNoneOrWithOneDocument) {
  PrepareOptions o = options();
  o.val_fraction = 0;
  EXPECT_EQ(prepare(o).val_tokens, 0);
  EXPECT_TRUE(open_corpus(output_)->val.empty());
  PrepareOptions one = options();
  one.inputs = {text_ + "/doc0.txt"};
  EXPECT_EQ(prepare(one).val_tokens, 0);
}

TEST_F(PrepareTest, AnExistingTokenizerIsUsedAsItIs) {
  prepare(options());
  PrepareOptions o = options();
  o.tokenizer = output_ + "/tokenizer.model";
  o.vocab_size = 32768;  // the model's own size counts
  o.output_folder = folder_.file("second");
  EXPECT_EQ(prepare(o).vocab_size, 400);
  EXPECT_EQ(read_file(o.output_folder + "/tokenizer.model").value(), read_file(o.tokenizer).value());
  EXPECT_EQ(read_file(o.output_folder + "/corpus_train_000001.bin").value(),
            read_file(output_ + "/corpus_train_000001.bin").value());
  o.tokenizer = text_ + "/doc0.txt";
  EXPECT_THAT(error_of(o), HasSubstr("doc0.txt is not a SentencePiece model"));
  o.tokenizer = folder_.file("none.model");
  EXPECT_THAT(error_of(o), HasSubstr("cannot open " + o.tokenizer));
}

TEST_F(PrepareTest, AVocabularyThatDoesNotFitTheTextIsExplained) {
  PrepareOptions o = options();
  o.vocab_size = 60'000;
  const std::string too_large = error_of(o);
  EXPECT_THAT(too_large, HasSubstr("do not give a vocabulary of 60000 tokens: it supports at most "));
  o.vocab_size = std::stoi(too_large.substr(too_large.find("--vocab-size ") + 13));  // the advice must hold
  EXPECT_EQ(prepare(o).vocab_size, o.vocab_size);
  o.vocab_size = 260;
  const std::string too_small = error_of(o);
  EXPECT_THAT(too_small, HasSubstr("its characters alone need "));
  o.vocab_size = std::stoi(too_small.substr(too_small.find("alone need ") + 11));
  EXPECT_EQ(prepare(o).vocab_size, o.vocab_size);
  put_file(folder_.file("blank.txt"), "\n\n\n");
  o.inputs = {folder_.file("blank.txt")};
  EXPECT_THAT(error_of(o), HasSubstr("it has nothing but empty lines"));
}

TEST_F(PrepareTest, WrongOptionsAreNamed) {
  const auto error_with = [&](auto change) {
    PrepareOptions o = options();
    change(o);
    return error_of(o);
  };
  using O = PrepareOptions;
  EXPECT_THAT(error_with([](O& o) { o.inputs = {}; }), HasSubstr("no text was named"));
  EXPECT_THAT(error_with([](O& o) { o.output_folder = ""; }), HasSubstr("no output folder was named"));
  for (const std::string name : {"", "a/b", "..\n"})
    EXPECT_THAT(error_with([&](O& o) { o.name = name; }), HasSubstr("corpus name \"" + name + "\" must be"));
  for (const std::string name : {"x_train_y", "x_val_y", "my_val", "x_train", "val", "train.1", "a-val-b"})
    EXPECT_THAT(error_with([&](O& o) {
                  o.name = name;
                  o.inputs = {"/nowhere"};  // refused before anything is read
                }),
                HasSubstr("corpus name \"" + name + "\" must not have the word"));
  EXPECT_THAT(error_with([](O& o) { o.vocab_size = 65'537; }),
              HasSubstr("vocabulary size 65537 must be from 1 to 65536"));
  EXPECT_THAT(error_with([](O& o) { o.vocab_size = 0; }), HasSubstr("vocabulary size 0 must be"));
  EXPECT_THAT(error_with([](O& o) { o.val_fraction = 0.6; }),
              HasSubstr("validation fraction 0.6 must be from 0 to 0.5"));
  EXPECT_THAT(error_with([](O& o) { o.val_fraction = std::nan(""); }), HasSubstr("validation fraction nan"));
  EXPECT_THAT(error_with([](O& o) { o.max_bytes = -1; }), HasSubstr("the limit of -1 bytes of text is negative"));
  EXPECT_THAT(error_with([](O& o) { o.tokens_per_shard = 0; }), HasSubstr("0 tokens per shard must be from 1 to"));
}

TEST_F(PrepareTest, InputsWithoutTextAreNamed) {
  PrepareOptions o = options();
  o.inputs = {folder_.file("nowhere")};
  EXPECT_THAT(error_of(o), HasSubstr("there is no file or folder " + folder_.file("nowhere")));
  fs::create_directory(folder_.file("empty"));
  o.inputs = {folder_.file("empty")};
  EXPECT_THAT(error_of(o),
              HasSubstr("there are no text files in " + folder_.file("empty") + ": folders are searched for"));
  o.inputs = {"/dev/null"};
  EXPECT_THAT(error_of(o), HasSubstr("/dev/null is neither a regular file nor a folder"));
  put_file(folder_.file("empty/latin1.txt"), "caf\xE9\n");
  o.inputs = {folder_.file("empty")};
  EXPECT_THAT(error_of(o), HasSubstr("the 1 files found hold no text: 1 are not text, such as " +
                                     folder_.file("empty") + "/latin1.txt: line 1 holds the byte 0xE9"));
}

// Of a file that turns out not to be text half-way, nothing goes in: the corpus is the one without it.
TEST_F(PrepareTest, AFileThatIsNotTextHalfWayContributesNothing) {
  prepare(options());
  const auto without = folder_content(output_);
  std::string text;
  while (text.size() <= limits::document_bytes) text += some_text(77, 40);  // a whole document before the bad byte
  put_file(text_ + "/doc3b.txt", text + "caf\xE9\n");
  put_file(text_ + "/nul.txt", std::string("a\n\0b", 4));
  const PrepareResult result = prepare(options());
  EXPECT_EQ(result.documents, 10);
  ASSERT_EQ(result.skipped.size(), 2u);
  EXPECT_EQ(result.skipped[0].path, text_ + "/doc3b.txt");
  const auto line = 1 + std::count(text.begin(), text.end(), '\n');
  EXPECT_EQ(result.skipped[0].reason,
            "line " + std::to_string(line) + " holds the byte 0xE9, which is not UTF-8 there");
  EXPECT_EQ(result.skipped[1].reason, "line 2 holds a NUL byte: this is not text");
  auto with = folder_content(output_);
  const auto described = nlohmann::json::parse(with["corpus.json"]);
  EXPECT_EQ(described["skipped_files"], 2);
  EXPECT_EQ(described["skipped"][0]["file"], text_ + "/doc3b.txt");
  EXPECT_EQ(described["skipped"][1]["reason"], "line 2 holds a NUL byte: this is not text");
  for (const auto& [name, content] : without) {
    if (name == "corpus.json") continue;
    EXPECT_EQ(with[name], content) << name;
  }
}

TEST_F(PrepareTest, SkippedFilesBeyondAScreenfulAreCounted) {
  for (int i = 0; i < 25; ++i) put_file(text_ + "/bad" + std::to_string(i) + ".txt", "\xFF");
  EXPECT_EQ(prepare(options()).skipped.size(), 25u);
  EXPECT_THAT(said_, Contains("  and 5 more, which corpus.json will name"));
  EXPECT_EQ(nlohmann::json::parse(read_file(output_ + "/corpus.json").value())["skipped"].size(), 25u);
}

TEST_F(PrepareTest, WhatTheByteLimitAndFoldersLeaveOutIsCounted) {
  put_file(text_ + "/page.html", "<p>");
  PrepareOptions o = options();
  o.max_bytes = static_cast<int64_t>(some_text(0, 40).size() + some_text(1, 40).size() / 2);
  const PrepareResult result = prepare(o);
  EXPECT_EQ(result.unread_files, 8);
  EXPECT_EQ(result.passed_over, 1);
  EXPECT_THAT(said_, Contains("--max-bytes was reached in " + text_ + "/doc1.txt; 8 files after it are not read"));
  EXPECT_THAT(said_, Contains(HasSubstr("passed over 1 files in folders")));
}

// A second copy of a validation document would be trained on.
TEST_F(PrepareTest, AFolderNamedTwiceGoesInOnce) {
  PrepareOptions o = options();
  fs::create_directory_symlink(text_, folder_.file("link"));
  o.inputs = {text_, text_ + "/../text", folder_.file("link"), text_ + "/doc3.txt"};
  EXPECT_EQ(prepare(o).documents, 10);
}

TEST_F(PrepareTest, ALimitOfLessThanACharacterIsNotABadFile) {
  std::string text(limits::document_bytes, 'a');
  put_file(folder_.file("euro.txt"), text + "\xE2\x82\xAC");
  for (const int64_t more : {1, 2}) {
    TextReader reader({folder_.file("euro.txt")}, static_cast<int64_t>(text.size()) + more);
    EXPECT_EQ(reader.next().value()->text, text);
    EXPECT_FALSE(reader.next().value().has_value());
    EXPECT_TRUE(reader.at_limit());
  }
}

// A tokenizer as SentencePiece trains it unless told otherwise, or nearly so.
std::string foreign_model(const std::string& path, const std::string& text, const std::string& more) {
  EXPECT_TRUE(sentencepiece::SentencePieceTrainer::Train("--input=" + text + " --model_prefix=" + path +
                                                         " --minloglevel=2 " + more)
                  .ok());
  return path + ".model";
}

TEST_F(PrepareTest, ATokenizerThatDoesNotKeepTheTextIsReported) {
  PrepareOptions o = options();
  o.tokenizer = foreign_model(folder_.file("default"), text_ + "/doc0.txt", "--vocab_size=60");
  put_file(text_ + "/doc2.txt", "plain\n\xE6\xBC\xA2\n");  // a character that it has not seen
  const PrepareResult result = prepare(o);
  EXPECT_EQ(result.round_trip.documents_changed, 10);
  EXPECT_EQ(result.round_trip.bytes_changed, result.text_bytes);
  EXPECT_EQ(result.round_trip.line_ends_lost, 9 * 40 + 2);
  EXPECT_EQ(result.round_trip.unknown_tokens, 1);
  EXPECT_EQ(result.round_trip.path, text_ + "/doc0.txt");
  EXPECT_EQ(result.round_trip.line, 1);
  EXPECT_NE(result.round_trip.text, result.round_trip.decoded);
  EXPECT_THAT(said_, Contains(HasSubstr("warning: the tokenizer does not keep the text: 10 of 10 documents")));
  const auto described = nlohmann::json::parse(read_file(output_ + "/corpus.json").value())["round_trip"];
  EXPECT_EQ(described["documents_changed"], 10);
  EXPECT_EQ(described["unknown_tokens"], 1);
  EXPECT_EQ(described["first"]["file"], text_ + "/doc0.txt");
}

// As Llama's: no normalisation, but a space in front of whatever is encoded. Encoded by line it would grow spaces.
TEST_F(PrepareTest, ATokenizerThatPutsASpaceInFrontKeepsTheText) {
  PrepareOptions o = options();
  o.tokenizer =
      foreign_model(folder_.file("llama"), text_ + "/doc0.txt",
                    "--vocab_size=400 --model_type=bpe --byte_fallback=true --normalization_rule_name=identity "
                    "--remove_extra_whitespaces=false");
  const PrepareResult result = prepare(o);
  EXPECT_EQ(result.round_trip.documents_changed, 0);
  EXPECT_THAT(said_, Not(Contains(HasSubstr("warning"))));
  EXPECT_EQ(documents(open_corpus(output_)->val, result.separator_id),
            (std::vector<std::string>{some_text(4, 40), some_text(9, 40)}));
}

TEST_F(PrepareTest, OurOwnTokenizerKeepsAllButTheCharacterThatStandsForSpaces) {
  put_file(text_ + "/doc0.txt", "first\na \xE2\x96\x81 b\n");
  const PrepareResult result = prepare(options());
  EXPECT_EQ(result.round_trip.documents_changed, 1);
  EXPECT_EQ(result.round_trip.line, 2);
  EXPECT_EQ(result.round_trip.line_ends_lost, 0);
  EXPECT_EQ(result.round_trip.unknown_tokens, 0);
  EXPECT_EQ(result.round_trip.decoded, "first\na   b\n");
}

// Words that SentencePiece cannot train on: it counts positions in 16 bits, and crashes from 32,769 characters on.
TEST_F(PrepareTest, LinesWithoutASpaceAreNoTrouble) {
  std::string base64, han;
  uint32_t state = 1;
  const auto random = [&] { return (state = state * 1664525 + 1013904223) >> 16; };
  const std::string digits = "ABCDEFGHIJKLMNOPabcdefghijklmnop0123456789+/";
  while (base64.size() < 70'000) base64 += digits[random() % digits.size()];
  while (han.size() < 150'000) {
    const uint32_t c = 0x4E00 + random() % 100;
    han += {static_cast<char>(0xE0 | c >> 12), static_cast<char>(0x80 | (c >> 6 & 63)),
            static_cast<char>(0x80 | (c & 63))};
  }
  for (const std::string& text :
       {base64, han, std::string(32'768, 'x'), std::string(32'769, 'x'), std::string(70'000, ' ') + "x\n",
        std::string(50'000, '\t'), std::string("ab ") + std::string(40'000, 'y') + " cd\n"}) {
    put_file(text_ + "/long.txt", text);
    EXPECT_EQ(prepare(options()).round_trip.documents_changed, 0);
    EXPECT_EQ(documents(open_corpus(output_)->train, 1).back(), text);
  }
}

TEST_F(PrepareTest, ADamagedGzipFileIsNamed) {
  const std::string path = text_ + "/doc5.txt.gz";
  put_gz(path, some_text(5, 400));
  const std::string whole = read_file(path).value();
  put_file(path, whole.substr(0, whole.size() / 2));
  EXPECT_THAT(error_of(options()), HasSubstr("cannot read " + path + ": unexpected end of file"));
  std::string flipped = whole;
  flipped[whole.size() - 6] ^= 1;  // its CRC
  put_file(path, flipped);
  EXPECT_THAT(error_of(options()), HasSubstr("cannot read " + path + ": incorrect data check"));
}

TEST_F(PrepareTest, ItsOwnCorpusIsReplacedAsAWhole) {
  PrepareOptions small_shards = options();
  small_shards.tokens_per_shard = 500;
  prepare(small_shards);
  const size_t before = folder_content(output_).size();
  PrepareOptions o = options();
  o.output_folder = output_ + "/";
  prepare(o);
  EXPECT_LT(folder_content(output_).size(), before);
  EXPECT_EQ(open_corpus(output_)->train.size(), 1u);
  EXPECT_FALSE(fs::exists(output_ + ".preparing"));
}

TEST_F(PrepareTest, FoldersWithOtherFilesAreLeftAlone) {
  fs::create_directory(output_);
  prepare(options());  // an empty folder is fine
  put_file(output_ + "/thesis.tex", "years of work");
  const auto before = folder_content(output_);
  EXPECT_THAT(error_of(options()),
              HasSubstr("will not replace " + output_ + ": it holds thesis.tex, which `assay data prepare`"));
  EXPECT_EQ(folder_content(output_), before);
  PrepareOptions o = options();
  o.output_folder = text_;
  EXPECT_THAT(error_of(o), HasSubstr("it is not empty and holds no corpus.json"));
  o.output_folder = text_ + "/doc0.txt";
  EXPECT_THAT(error_of(o), HasSubstr("it is not a folder"));
  put_file(output_ + "/corpus.json", "{}");
  EXPECT_THAT(error_of(options()), HasSubstr("its corpus.json does not list the corpus's files"));
}

TEST_F(PrepareTest, TwoAtOnceAreRefused) {
  PrepareOptions o = options();
  std::string second;
  const auto first = prepare_data(o, [&](const std::string&) {
    if (!second.empty()) return;
    const auto result = prepare_data(o, [](const std::string&) {});
    second = result.ok() ? "no error" : result.error().message;
  });
  EXPECT_TRUE(first.ok());
  EXPECT_THAT(second, HasSubstr("another process is preparing " + output_ + " right now"));
}

// With the tokenizer given, so that a round is short.
TEST_F(PrepareTest, AKillAtAnyPointLeavesTheOldCorpusOrTheNew) {
  PrepareOptions o = options();
  prepare(o);
  o.tokenizer = folder_.file("tokenizer.model");
  fs::copy_file(output_ + "/tokenizer.model", o.tokenizer);
  o.tokens_per_shard = 4000;
  const auto old_corpus = folder_content(output_);
  const std::string before = folder_.file("before");
  fs::copy(output_, before, fs::copy_options::recursive);
  prepare(o);
  const auto new_corpus = folder_content(output_);
  ASSERT_NE(old_corpus, new_corpus);
  bool seen_old = false, seen_new = false;
  const int kills = kill_at_every_point({
      .set_up =
          [&] {
            fs::remove_all(output_);
            fs::remove_all(output_ + ".preparing");
            fs::copy(before, output_, fs::copy_options::recursive);
          },
      .work = [&] { return prepare_data(o, [](const std::string&) {}).ok(); },
      .verify =
          [&](const KillPoint& point) {
            SCOPED_TRACE(point.describe());
            const auto found = folder_content(output_);
            EXPECT_TRUE(found == old_corpus || found == new_corpus);
            (found == old_corpus ? seen_old : seen_new) = true;
            if (point.call % 5 != 0 || point.torn) return;
            prepare(o);  // what the killed one left does not stand in the way
            EXPECT_EQ(folder_content(output_), new_corpus);
            EXPECT_FALSE(fs::exists(output_ + ".preparing"));
          },
  });
  if (kills < 0) GTEST_SKIP() << "this system does not allow tracing a child process";
  EXPECT_GT(kills, 30);
  EXPECT_TRUE(seen_old && seen_new);
}

TEST_F(PrepareTest, AFolderThatCannotBeWrittenIsNamed) {
  PrepareOptions o = options();
  o.output_folder = text_ + "/doc0.txt/corpus";
  EXPECT_THAT(error_of(o), HasSubstr("doc0.txt"));
  if (::geteuid() == 0) return;  // root writes everywhere
  fs::create_directory(folder_.file("locked"));
  ASSERT_EQ(::chmod(folder_.file("locked").c_str(), 0500), 0);
  o.output_folder = folder_.file("locked/corpus");
  EXPECT_THAT(error_of(o), HasSubstr("cannot create folder " + folder_.file("locked/corpus.preparing")));
}

}  // namespace
}  // namespace assay
