#include "cli/format.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "cli/nearest.h"
#include "cli/table.h"

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
  EXPECT_EQ(plural(1, "run"), "1 run");
  EXPECT_EQ(plural(0, "run"), "0 runs");
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

TEST(Nearest, FindsTheWordThatWasMeant) {
  const std::vector<std::string> verbs = {"enqueue", "export", "ls", "watch", "wait"};
  EXPECT_EQ(nearest("enque", verbs), "enqueue");
  EXPECT_EQ(nearest("wacth", verbs), "watch");
  EXPECT_EQ(nearest("watchh", verbs), "watch");
  EXPECT_EQ(nearest("lss", verbs), "ls");
  EXPECT_EQ(nearest("banana", verbs), "");
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
