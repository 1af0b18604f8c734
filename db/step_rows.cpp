#include "db/step_rows.h"

#include <fmt/format.h>

#include <map>
#include <optional>

namespace assay {
namespace {

constexpr const char* type_of(const StepField& field) {
  return field.is_integer() ? "INTEGER" : "REAL";
}

// IS, because NULL is the same as NULL. A field of a later version counts only where both sides have it: the step may
// have been stored, or its journal read, by a program that did not know it.
std::string same_value(const StepField& field, int parameter) {
  const std::string same = fmt::format("{} IS ?{}", field.name, parameter);
  return field.since == 1 ? same : fmt::format("({0} OR {1} IS NULL OR ?{2} IS NULL)", same, field.name, parameter);
}

StepSql make_step_sql() {
  std::string columns, values = "?1", same;
  int parameter = 1;
  for (const StepField& field : step_fields) {
    ++parameter;
    if (!columns.empty()) columns += ", ";
    columns += field.name;
    values += fmt::format(", ?{}", parameter);
    same += " AND " + same_value(field, parameter);
  }
  const std::string select = "SELECT " + columns + " FROM steps WHERE attempt_id = ? AND step ";
  return {
      .insert = fmt::format("INSERT INTO steps (attempt_id, {}) VALUES ({}) ON CONFLICT DO NOTHING", columns, values),
      .find = select + "= ?",
      .find_same = "SELECT 1 FROM steps WHERE attempt_id = ?1" + same,
      .page = select + ">= ? ORDER BY step LIMIT ?"};
}

void read(const Statement& row, int column, int64_t& value) {
  value = row.is_null(column) ? not_recorded<int64_t> : row.integer(column);
}
void read(const Statement& row, int column, double& value) {
  value = row.real(column);
}

}  // namespace

const StepSql& step_sql() {
  static const StepSql sql = make_step_sql();
  return sql;
}

void bind_step(Statement& statement, const StepMetrics& metrics) {
  for_each_field(metrics, [&](const StepField& field, auto value) {
    statement.add(is_recorded(field.presence, value) ? std::optional(value) : std::nullopt);
  });
}

StepMetrics read_step(const Statement& row) {
  StepMetrics metrics;
  int column = 0;
  for_each_field(metrics, [&](const StepField&, auto& value) { read(row, column++, value); });
  return metrics;
}

Status check_step_table(Database& database) {
  std::map<std::string, std::string> found;  // name, type
  {
    ASSAY_ASSIGN(auto rows, database.prepare("SELECT name, type FROM pragma_table_info('steps')"));
    while (true) {
      ASSAY_ASSIGN(const bool row, rows.step());
      if (!row) break;
      found.emplace(rows.text(0), rows.text(1));
    }
  }
  const auto wrong = [&](std::string what) {
    return Error{ErrorCode::failed_precondition,
                 fmt::format("{}: table steps {}: the file is damaged or was written by another Assay; put back a "
                             "copy of it, or move it away to start without history",
                             database.path(), what)};
  };
  found.erase("attempt_id");
  for (const StepField& field : step_fields) {
    const auto column = found.extract(std::string(field.name));
    if (column.empty()) return wrong(fmt::format("has no column {}", field.name));
    if (column.mapped() != type_of(field))
      return wrong(fmt::format("has {} in column {}, not {}", column.mapped(), field.name, type_of(field)));
  }
  if (!found.empty())
    return wrong(fmt::format("has a column {} that this program does not know", found.begin()->first));
  return {};
}

}  // namespace assay
