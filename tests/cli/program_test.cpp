// The command line as a whole: usage, help, exit codes, no daemon.
#include <gmock/gmock.h>

#include "base/version.h"
#include "fake_service.h"

namespace assay {
namespace {

using test::CliTest;
using testing::HasSubstr;
using testing::StartsWith;

TEST_F(CliTest, NoVerbAndUnknownVerbAreUsage) {
  EXPECT_EQ(run({}), ExitCode::usage);
  EXPECT_EQ(err, "assay: no verb given; `assay --help` lists them\n");
  EXPECT_EQ(run_as_given({"enque", "x.toml"}), ExitCode::usage);
  EXPECT_EQ(err, "assay: there is no verb 'enque'; did you mean 'enqueue'?\n");
  EXPECT_EQ(run_as_given({"ba\nnana"}), ExitCode::usage);
  EXPECT_EQ(err, "assay: there is no verb 'ba\\nnana'; `assay --help` lists them\n");
}

TEST_F(CliTest, WrongOptionsAreUsageAndNameTheVerb) {
  EXPECT_EQ(run({"ls", "--nosuch"}), ExitCode::usage);
  EXPECT_THAT(err, StartsWith("assay: ls: "));
  EXPECT_THAT(err, HasSubstr("--nosuch"));
  EXPECT_EQ(run({"ls", "--state", "runing"}), ExitCode::usage);
  EXPECT_THAT(err, HasSubstr("runing"));
  EXPECT_EQ(run({"show"}), ExitCode::usage);
  EXPECT_EQ(run({"retry"}), ExitCode::usage);
  EXPECT_THAT(err, HasSubstr("--failed"));
  EXPECT_EQ(run({"cancel"}), ExitCode::usage);
  EXPECT_THAT(err, HasSubstr("--all"));
}

TEST_F(CliTest, NumbersAreReadWithTheirUnits) {
  const std::vector<std::pair<std::vector<std::string>, std::string>> wrong = {
      {{"wait", "--timeout", "5x"}, "wait: --timeout: \"5x\" is no duration; write seconds, or 90s, 5m, 2h, 1d"},
      {{"wait", "--timeout", "-1"}, "wait: --timeout: \"-1\" is no duration; write seconds, or 90s, 5m, 2h, 1d"},
      {{"logs", "a", "--last", "10q"}, "logs: --last: \"10q\" is no size; write bytes, or 10k, 1M, 2G (1k = 1,024)"},
      {{"logs", "a", "--last", "0"}, "logs: --last: must be more than 0"},
      {{"logs", "a", "--attempt", "0"}, "logs: --attempt: \"0\" is no whole number of at least 1"},
      {{"ls", "--limit", "-1"}, "ls: --limit: \"-1\" is no whole number of at least 0"},
      {{"export", "--attempt", "1.5"}, "export: --attempt: \"1.5\" is no whole number of at least 1"}};
  for (const auto& [arguments, message] : wrong) {
    EXPECT_EQ(run(arguments), ExitCode::usage) << message;
    EXPECT_EQ(err, "assay: " + message + "; see `assay " + arguments[0] + " --help`\n");
  }
}

TEST_F(CliTest, TheVersionIsAsked) {
  for (const char* flag : {"-V", "--version"}) {
    EXPECT_EQ(run_as_given({flag}), ExitCode::ok);
    EXPECT_EQ(out, std::string("assay ") + version() + "\n");
  }
}

// What is printed has to arrive: /dev/full takes nothing.
TEST_F(CliTest, OutputThatDoesNotArriveIsAnError) {
  start_daemon();
  fake.add_run("a", "queued").mutable_latest()->set_n(1);
  fake.log = "step 0\n";
  const std::vector<std::vector<std::string>> verbs = {{"--help"},       {"-V"},
                                                       {"ls", "--help"}, {"ls"},
                                                       {"ls", "--json"}, {"show", "a"},
                                                       {"logs", "a"},    {"export"},
                                                       {"devices"},      {"cancel", "a"},
                                                       {"hold"},         {"wait", "--timeout", "1"},
                                                       {"watch"},        {"report", "-o", home.file("r")}};
  for (const auto& verb : verbs) {
    EXPECT_EQ(run_into("/dev/full", verb), ExitCode::limits) << verb[0];
    EXPECT_THAT(err, HasSubstr("cannot write to standard output: No space left on device")) << verb[0];
  }
}

TEST_F(CliTest, EveryErrorHasTheProgramsName) {
  start_daemon();
  fake.failure = grpc::Status(grpc::INVALID_ARGUMENT, "the tag \"t\" means several");
  EXPECT_EQ(run({"ls"}), ExitCode::invalid);
  EXPECT_EQ(err, "assay: the tag \"t\" means several\n");
  fake.failure =
      grpc::Status(grpc::INVALID_ARGUMENT, "a b.toml:9:1: unknown key\n<stdin>:1:2: no\nx:9: y\n... and 3 more");
  EXPECT_EQ(run({"ls"}), ExitCode::invalid);
  EXPECT_EQ(err, "a b.toml:9:1: unknown key\n<stdin>:1:2: no\nassay: x:9: y\nassay: ... and 3 more\n")
      << "a place comes first, for editors";
}

TEST_F(CliTest, EveryVerbHasHelpWithExamples) {
  EXPECT_EQ(run({"--help"}), ExitCode::ok);
  EXPECT_THAT(out, HasSubstr("5 daemon not running"));
  for (const char* verb : {"up", "down", "plan", "enqueue", "ls", "watch", "show", "logs", "retry", "cancel", "hold",
                           "release", "wait", "report", "export", "devices", "doctor"}) {
    EXPECT_EQ(run({verb, "--help"}), ExitCode::ok) << verb;
    EXPECT_THAT(out, HasSubstr(std::string("Examples:\n  assay ") + verb)) << verb;
  }
}

TEST_F(CliTest, WithoutADaemonEveryVerbSaysHowToStartIt) {
  const std::string line = "assay: no daemon is running for " + home.path() + "; start it with: assay up\n";
  const std::vector<std::vector<std::string>> verbs = {{"ls"},         {"watch"},       {"show", "x"}, {"logs", "x"},
                                                       {"retry", "x"}, {"cancel", "x"}, {"hold"},      {"release"},
                                                       {"wait"},       {"report"},      {"export"},    {"devices"}};
  for (const auto& verb : verbs) {
    EXPECT_EQ(run(verb), ExitCode::unavailable) << verb[0];
    EXPECT_EQ(err, line) << verb[0];
    EXPECT_EQ(out, "") << verb[0];
  }
}

TEST_F(CliTest, TheSocketOfADeadDaemonIsNoDaemon) {
  start_daemon();
  ASSERT_EQ(::link(socket_path(home.path())->c_str(), home.file("kept").c_str()), 0);
  server->Shutdown();
  server.reset();
  ::rename(home.file("kept").c_str(), socket_path(home.path())->c_str());
  EXPECT_EQ(run({"ls"}), ExitCode::unavailable);
  EXPECT_EQ(err, "assay: no daemon is running for " + home.path() + "; start it with: assay up\n");
  EXPECT_EQ(run({"down"}), ExitCode::ok);
  EXPECT_EQ(out, "no daemon is running for " + home.path() + "\n");
}

TEST_F(CliTest, ErrorsAsJson) {
  EXPECT_EQ(run({"ls", "--json"}), ExitCode::unavailable);
  EXPECT_EQ(err, R"({"error":{"exit_code":5,"kind":"unavailable","message":"no daemon is running for )" + home.path() +
                     R"(; start it with: assay up"}})" + "\n");
}

TEST_F(CliTest, TheDaemonsErrorsKeepTheirMeaning) {
  start_daemon();
  const std::vector<std::pair<grpc::StatusCode, ExitCode>> codes = {
      {grpc::INVALID_ARGUMENT, ExitCode::invalid},     {grpc::NOT_FOUND, ExitCode::not_found},
      {grpc::FAILED_PRECONDITION, ExitCode::refused},  {grpc::RESOURCE_EXHAUSTED, ExitCode::limits},
      {grpc::PERMISSION_DENIED, ExitCode::permission}, {grpc::DATA_LOSS, ExitCode::internal},
      {grpc::UNAVAILABLE, ExitCode::unavailable}};
  for (const auto& [status, code] : codes) {
    fake.failure = grpc::Status(status, "why \x1b[31m");
    EXPECT_EQ(run({"ls"}), code) << status;
    EXPECT_THAT(err, HasSubstr("why \\x1b[31m")) << status;
  }
}

TEST_F(CliTest, ADaemonOfAnotherVersionIsNamed) {
  start_daemon();
  fake.failure = grpc::Status(grpc::UNIMPLEMENTED, "");
  EXPECT_EQ(run({"ls"}), ExitCode::internal);
  EXPECT_THAT(err, HasSubstr("of another version"));
}

TEST_F(CliTest, DataIsHandedToItsProgram) {
  EXPECT_EQ(run_as_given({"data", "prepare", "in.txt", "-o", "out", "--help"}), ExitCode::not_found);
  EXPECT_EQ(became, programs.path() + "/assay-data");
  EXPECT_EQ(became_arguments, (std::vector<std::string>{"data", "prepare", "in.txt", "-o", "out", "--help"}));
}

TEST_F(CliTest, ATooLongHomeIsSaid) {
  EXPECT_EQ(run_as_given({"--home", "/" + std::string(120, 'x'), "ls"}), ExitCode::invalid);
  EXPECT_THAT(err, HasSubstr("a socket path has at most 107 bytes"));
}

}  // namespace
}  // namespace assay
