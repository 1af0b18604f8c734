#include "engine/data/survey.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/limits.h"
#include "base/text.h"

namespace assay {

Result<Survey> survey_text(const std::vector<std::string>& files, int64_t max_bytes) {
  Survey survey;
  for (size_t i = 0; i < files.size(); ++i) {
    TextReader reader({files[i]}, max_bytes == 0 ? 0 : max_bytes - survey.bytes);
    int64_t documents = 0;
    auto document = reader.next();
    for (; document.ok() && *document; document = reader.next()) ++documents;
    if (document.ok()) {
      survey.files.push_back(files[i]);
      survey.documents += documents;
      survey.bytes += reader.bytes();
    } else if (!reader.not_text().empty()) {
      survey.skipped.push_back({files[i], reader.not_text()});
    } else {
      return document.error();
    }
    if (!reader.at_limit()) continue;
    survey.at_limit = true;
    survey.unread_files = static_cast<int64_t>(files.size() - i - 1);
    break;
  }
  if (survey.documents > 0) return survey;
  const std::string why = survey.skipped.empty() ? "they are empty, or --max-bytes ends within the first character"
                                                 : fmt::format("{} are not text, such as {}: {}", survey.skipped.size(),
                                                               survey.skipped[0].path, survey.skipped[0].reason);
  return Error{ErrorCode::invalid_argument, fmt::format("the {} files found hold no text: {}", files.size(), why)};
}

void say_left_out(const Survey& survey, const TextFiles& found, const std::function<void(const std::string&)>& say) {
  if (!survey.skipped.empty())
    say(fmt::format("skipped {} of {} files, which are not UTF-8 text; nothing of them is used:", survey.skipped.size(),
                    found.paths.size()));
  const size_t shown = std::min(survey.skipped.size(), limits::skipped_files_shown);
  for (size_t i = 0; i < shown; ++i) say(fmt::format("  {}: {}", survey.skipped[i].path, survey.skipped[i].reason));
  if (shown < survey.skipped.size())
    say(fmt::format(" {}, which corpus.json will name", and_more(survey.skipped.size() - shown)));
  if (survey.at_limit)
    say(fmt::format("--max-bytes was reached in {}; {} files after it are not read", survey.files.back(),
                    survey.unread_files));
  if (!found.passed_over.empty())
    say(
        fmt::format("passed over {} files in folders that are not *.txt, *.rst or *.md (also with .gz), or are "
                    "symbolic links",
                    found.passed_over.size()));
}

Result<std::string> sample_text(const Survey& survey, int64_t max_bytes) {
  const auto bound = static_cast<int64_t>(limits::tokenizer_sample_bytes);
  const int64_t every = (survey.bytes + bound - 1) / bound;
  TextReader reader(survey.files, max_bytes);
  std::string sample;
  for (int64_t i = 0; sample.size() < limits::tokenizer_sample_bytes; ++i) {
    ASSAY_ASSIGN(const std::optional<Document> document, reader.next());
    if (!document) break;
    if (i % every == 0) sample += document->text + "\n";
  }
  return sample;
}

std::string megabytes(int64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace assay
