#include "cli/format.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cli/table.h"
#include "cli/units.h"

namespace assay {
namespace {

TEST(Format, PrintableShowsWhatWouldMoveTheCursor) {
  EXPECT_EQ(printable("plain caf\xc3\xa9"), "plain caf\xc3\xa9");
  EXPECT_EQ(printable("a\nb\tc\r"), "a\\nb\\tc\\r");
  EXPECT_EQ(printable("\x1b[2J\x07"), "\\x1b[2J\\x07");
  EXPECT_EQ(printable("\xc2\x9b"
                      "31m"),
            "\\x9b31m");  // C1: the one-character CSI
  EXPECT_EQ(printable("\xe2\x80\xae"
                      "txt.exe"),
            "\\u202etxt.exe");  // right-to-left override
  EXPECT_EQ(printable("\xff\xc3"), "\\xff\\xc3");
  EXPECT_EQ(printable("\xc0\xaf\xed\xa0\x80"), "\\xc0\\xaf\\xed\\xa0\\x80");  // overlong, surrogate
  EXPECT_EQ(first_line("one\ntwo"), "one");
}

TEST(Format, ShortenKeepsBothEnds) {
  EXPECT_EQ(shorten("moe_fp8_experts_static_repeat2", 30), "moe_fp8_experts_static_repeat2");
  EXPECT_EQ(shorten("moe_fp8_experts_static_repeat2", 13), "moe_fp…epeat2");
  EXPECT_EQ(display_width(shorten("caf\xc3\xa9 caf\xc3\xa9 caf\xc3\xa9", 7)), 7);
  EXPECT_EQ(shorten("abc", 1), "…");
  EXPECT_EQ(shorten("abc", 0), "");
}

TEST(Format, Numbers) {
  EXPECT_EQ(format_loss(4.67164), "4.6716");
  EXPECT_EQ(format_loss(std::nan("")), "nan");
  EXPECT_EQ(format_rate(982070.4), "982070");
  EXPECT_EQ(format_rate(0), "-");
  EXPECT_EQ(format_bytes(512), "512 B");
  EXPECT_EQ(format_bytes(1536), "1.5 KiB");
  EXPECT_EQ(format_mib(87.314), "87.31 MiB");
  EXPECT_EQ(format_mib(23231.91), "22.69 GiB");
  EXPECT_EQ(format_mib(0), "-");
  EXPECT_EQ(format_count(950), "950");
  EXPECT_EQ(format_count(1'254'321), "1.25M");
  EXPECT_EQ(format_count(999'999), "1.00M");
}

TEST(Format, Durations) {
  EXPECT_EQ(format_duration(400), "0.4 s");
  EXPECT_EQ(format_duration(9'949), "9.9 s");
  EXPECT_EQ(format_duration(9'950), "10 s");
  EXPECT_EQ(format_duration(125'000), "2m 05s");
  EXPECT_EQ(format_duration(3'599'600), "1h 00m");
  EXPECT_EQ(format_duration(2 * 86'400'000 + 4 * 3'600'000), "2d 04h");
  EXPECT_EQ(format_duration(-5), "0.0 s");
}

TEST(Format, ProgressBarFillsByEighths) {
  EXPECT_EQ(progress_bar(0, 4), "    ");
  EXPECT_EQ(progress_bar(0.5, 4), "██  ");
  EXPECT_EQ(progress_bar(0.28125, 4), "█▏  ");
  EXPECT_EQ(progress_bar(1, 4), "████");
  EXPECT_EQ(progress_bar(7, 4), "████");
  EXPECT_EQ(progress_bar(std::nan(""), 4), "    ");
  EXPECT_EQ(progress_bar(0.5, 4, true), "##..");
}

TEST(Format, NamesAreShortenedWhereTheyStayDifferent) {
  using testing::ElementsAre;
  EXPECT_THAT(shorten_apart({"fp8_static_seed1", "fp8_dynamic_seed1"}, 8), ElementsAre("fp8_s…d1", "fp8_d…d1"));
  EXPECT_THAT(shorten_apart({"run_a_with_one_seed", "run_b_with_one_seed"}, 7), ElementsAre("run_a…d", "run_b…d"))
      << "the middle, \"run…eed\", would make them alike";
  EXPECT_THAT(shorten_apart({"wide_long_1", "wide_long_2", "w"}, 7), ElementsAre("wid…g_1", "wid…g_2", "w"));
  EXPECT_THAT(shorten_apart({"ab", "cd"}, 2), ElementsAre("ab", "cd"));
}

TEST(Units, Durations) {
  for (const auto& [text, ms] : std::vector<std::pair<const char*, int64_t>>{{"90", 90'000},
                                                                             {"90s", 90'000},
                                                                             {"5m", 300'000},
                                                                             {"2h", 7'200'000},
                                                                             {"1d", 86'400'000},
                                                                             {"1.5h", 5'400'000},
                                                                             {"0.25", 250},
                                                                             {"0", 0}})
    EXPECT_EQ(parse_duration_ms(text).value(), ms) << text;
  for (const char* text : {"", "m", "5x", "-1", "-0", "1e400", "inf", "nan", "5 m", "5mm", "99999999999d", "0x10"})
    EXPECT_FALSE(parse_duration_ms(text).ok()) << text;
  EXPECT_EQ(parse_duration_ms("5x").error().message, "\"5x\" is no duration; write seconds, or 90s, 5m, 2h, 1d");
}

TEST(Units, Sizes) {
  for (const auto& [text, bytes] : std::vector<std::pair<const char*, int64_t>>{{"4096", 4096},
                                                                                {"10k", 10'240},
                                                                                {"10K", 10'240},
                                                                                {"10KiB", 10'240},
                                                                                {"1M", 1 << 20},
                                                                                {"1.5M", 3 << 19},
                                                                                {"2G", int64_t{2} << 30},
                                                                                {"1T", int64_t{1} << 40}})
    EXPECT_EQ(parse_bytes(text).value(), bytes) << text;
  for (const char* text : {"", "k", "10q", "-1k", "1e3x", "9999999T", "10kk"})
    EXPECT_FALSE(parse_bytes(text).ok()) << text;
  EXPECT_EQ(parse_bytes("10q").error().message, "\"10q\" is no size; write bytes, or 10k, 1M, 2G (1k = 1,024)");
}

TEST(Table, AlignsItsColumns) {
  Table table({{"run"}, {"step", Align::right}, {"state"}});
  table.add({"a", "1", "queued"});
  table.add({"longer", "140", "ok"});
  EXPECT_EQ(table.text(0, false),
            "run     step  state\n"
            "a          1  queued\n"
            "longer   140  ok\n");
}

TEST(Table, ShrinksNamesToTheTerminal) {
  Table table({{"run", Align::left, true}, {"state"}});
  table.add({"moe_fp8_experts_static_repeat2", "completed"});
  const std::string text = table.text(24, false);
  EXPECT_EQ(text, "run            state\nmoe_fp…epeat2  completed\n");
}

TEST(Table, DropsWhatAllNamesBeginWith) {
  Table table({{"run", Align::left, true, true}, {"state"}, {"remark", Align::left, true}});
  table.add({"moe_fp8_experts_static", "completed", "attempt 2"});
  table.add({"moe_fp8_experts_dynamic_long", "queued", ""});
  EXPECT_EQ(table.text(60, false),
            "run                           state      remark\n"
            "moe_fp8_experts_static        completed  attempt 2\n"
            "moe_fp8_experts_dynamic_long  queued\n");
  EXPECT_EQ(table.text(36, false),
            "run moe_fp8…  state      remark\n"
            "static        completed  attempt 2\n"
            "dynamic_long  queued\n")
      << "the words that differ are whole";
  EXPECT_EQ(table.text(31, false),
            "run moe_f…  state      remark\n"
            "static      completed  atte…t 2\n"
            "dynam…long  queued\n");
}

TEST(Table, NumbersInNamesStayWhole) {
  Table table({{"run", Align::left, true, true}, {"state"}});
  table.add({"moe_matrix_lr0.02", "queued"});
  table.add({"moe_matrix_lr0.05", "queued"});
  EXPECT_EQ(table.text(22, false),
            "run m…  state\n"
            "lr0.02  queued\n"
            "lr0.05  queued\n");
}

TEST(Table, OtherColumnsShrinkBeforeNamesDo) {
  Table table({{"run", Align::left, true, true}, {"remark", Align::left, true}});
  table.add({"a_rather_long_name_of_a_run", "out_of_memory: it needs 90,000 MiB"});
  EXPECT_EQ(table.text(45, false),
            "run                          remark\n"
            "a_rather_long_name_of_a_run  out_of_m…000 MiB\n");
}

TEST(Table, ColumnsKeepTheirWidthWhileAWindowScrolls) {
  Table table({{"run", Align::left, true, true}, {"state"}});
  table.add({"short", "queued"});
  table.add({"a_longer_name", "completed"});
  EXPECT_THAT(table.lines(80, false, 0, 1), testing::ElementsAre("run            state", "short          queued"));
  EXPECT_THAT(table.lines(80, false, 1, 5), testing::ElementsAre("run            state", "a_longer_name  completed"));
}

TEST(Table, NeverWrapsAndNeverBreaksAColour) {
  Table table({{"run", Align::left, true}, {"state"}, {"remark"}});
  table.add(
      {"moe_fp8_experts_static_repeat2", TableCell("completed", Colour::green), "a long remark that does not shrink"});
  for (int width = 1; width < 80; ++width)
    for (const std::string& line : table.lines(width, false)) EXPECT_LE(display_width(line), width) << width;
  EXPECT_NE(table.text(80, true).find("\x1b[32mcompleted\x1b[0m"), std::string::npos);
}

TEST(Table, EscapesWhatIsInItsCells) {
  Table table({{"run"}});
  table.add({"\x1b[31mred\nline"});
  EXPECT_EQ(table.text(0, false), "run\n\\x1b[31mred\\nline\n");
}

}  // namespace
}  // namespace assay
