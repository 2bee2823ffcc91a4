#include "tools/report.h"

#include <fmt/format.h>

#include <algorithm>

#include "tools/pictures/confusion_picture.h"
#include "tools/pictures/markup.h"
#include "tools/report_cards.h"
#include "tools/training_record.h"

namespace gm {

namespace {

constexpr size_t kMistakes = 24;
constexpr int kThumbnail = 128;

constexpr const char* kStyle = R"(
:root{--back:#fff;--card:#f6f8fa;--ink:#24292f;--soft:#57606a;--line:#d0d7de;--accent:#0969da}
@media (prefers-color-scheme:dark){:root{--back:#14181d;--card:#1c2128;--ink:#e6edf3;--soft:#a3adb8;--line:#373e47;
--accent:#6cb6ff}}
*{box-sizing:border-box}
body{margin:0 auto;padding:24px;max-width:1160px;background:var(--back);color:var(--ink);
font:15px/1.5 system-ui,"Segoe UI","DejaVu Sans",Arial,sans-serif}
h1{font-size:26px;margin:0 0 4px;overflow-wrap:anywhere}h2{font-size:20px;margin:36px 0 10px;border-bottom:1px solid var(--line)}
p{margin:6px 0;max-width:80ch;overflow-wrap:anywhere}.soft,figcaption,th{color:var(--soft)}
.tiles,.pair,.gallery{display:flex;flex-wrap:wrap;gap:14px}
.tiles div{background:var(--card);border:1px solid var(--line);border-radius:8px;padding:10px 16px}
.tiles b{display:block;font-size:22px}.pair>*{flex:1 1 420px;min-width:0}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums}
th,td{padding:3px 12px 3px 0;text-align:right;white-space:nowrap}th:first-child,td:first-child{text-align:left}
th{font-weight:600}tbody tr{border-top:1px solid var(--line)}td small{color:var(--soft)}
.card td{text-align:left;white-space:normal;overflow-wrap:anywhere}.card td:first-child{color:var(--soft);white-space:nowrap}
img,svg{max-width:100%;height:auto}figure{margin:0;width:150px}figure img{width:128px;height:128px;border-radius:6px}
figcaption{font-size:12px;overflow-wrap:anywhere}figcaption b{color:var(--ink)}
pre{background:var(--card);border:1px solid var(--line);border-radius:6px;padding:10px;overflow-x:auto;font-size:13px}
summary{cursor:pointer;color:var(--accent)}
)";

std::string share(double v) { return fmt::format("{:.1f} %", 100 * v); }
std::string range(const Interval& i) { return fmt::format("{:.1f} to {:.1f} %", 100 * i.low, 100 * i.high); }

std::string tiles(const Evaluation& e) {
  std::string out = "<div class=\"tiles\">\n";
  auto tile = [&](const std::string& value, const std::string& name) {
    out += fmt::format("<div><b>{}</b>{}</div>\n", markup_text(value), markup_text(name));
  };
  tile(share(e.metrics.accuracy), "accuracy, " + range(e.intervals.accuracy));
  tile(share(e.metrics.macro.f1), "macro F1, " + range(e.intervals.macro.f1));
  tile(fmt::format("{}", e.metrics.n), "images");
  tile(fmt::format("{:.3f}", e.raw.ece), "calibration error");
  tile(count_text(e.count.params_total), "parameters");
  tile(count_text(e.count.macs), "MACs an image");
  return out + "</div>\n<p class=\"soft\">Ranges are 95 % intervals, bootstrap over images.</p>\n";
}

std::string scores_table(const Evaluation& e) {
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th>class</th><th>precision</th><th>recall</th><th>F1</th>"
      "<th>images</th></tr></thead><tbody>\n";
  auto row = [&](const std::string& name, const auto& s, const MetricIntervals::Scores& i, int64_t n) {
    out += "<tr><td>" + markup_text(name) + "</td>";
    for (auto [value, interval] :
         {std::pair{s.precision, i.precision}, std::pair{s.recall, i.recall}, std::pair{s.f1, i.f1}})
      out += fmt::format("<td>{} <small>{:.1f} to {:.1f}</small></td>", share(value), 100 * interval.low,
                         100 * interval.high);
    out += fmt::format("<td>{}</td></tr>\n", n);
  };
  for (size_t c = 0; c < e.classes.size(); ++c)
    row(e.classes[c], e.metrics.per_class[c], e.intervals.per_class[c], e.metrics.per_class[c].support);
  row("macro average", e.metrics.macro, e.intervals.macro, e.metrics.n);
  row("weighted average", e.metrics.weighted, e.intervals.weighted, e.metrics.n);
  return out + "</tbody></table></div>\n";
}

std::string calibration(const Evaluation& e) {
  std::string out = "<div class=\"pair\"><div>" + chart_svg(reliability_chart(e)) + "</div><div>\n";
  out += fmt::format(
      "<p>Divided by the temperature {:.3f}, the logits give the least log loss on these images. The second "
      "column takes each half of the images with the temperature of the other half.</p>\n"
      "<table><thead><tr><th></th><th>as it is</th><th>with temperature</th></tr></thead><tbody>\n",
      e.temperature);
  for (auto [name, before, after] : {std::tuple{"calibration error (15 bins)", e.raw.ece, e.calibrated.ece},
                                     {"log loss", e.raw.nll, e.calibrated.nll},
                                     {"Brier score", e.raw.brier, e.calibrated.brier}})
    out += fmt::format("<tr><td>{}</td><td>{:.4f}</td><td>{:.4f}</td></tr>\n", name, before, after);
  return out + "</tbody></table></div></div>\n";
}

std::string speed_table(const Evaluation& e) {
  std::string out =
      "<div class=\"scroll\"><table><thead><tr><th>batch</th><th>median ms</th><th>p5</th><th>p95</th>"
      "<th>images a second</th></tr></thead><tbody>\n";
  for (const SpeedRow& s : e.speed)
    out += fmt::format("<tr><td>{}</td><td>{:.2f}</td><td>{:.2f}</td><td>{:.2f}</td><td>{:.0f}</td></tr>\n",
                       s.batch, s.median * 1e3, s.p5 * 1e3, s.p95 * 1e3, s.images_per_second());
  return out + "</tbody></table></div>\n<p class=\"soft\">The network alone on " + markup_text(e.device) +
         ", without reading images.</p>\n";
}

std::string mistakes(const ReportInput& in) {
  const auto& classes = in.evaluation.classes;
  const auto wrong = in.evaluation.metrics.n - in.evaluation.confusion.correct();
  const auto shown = worst_mistakes(in.outcomes, kMistakes);
  if (shown.empty()) return "<p>None.</p>\n";
  std::string out =
      fmt::format("<p>{} of {} images; {}, the surest first. All are in predictions.csv.</p>\n", wrong,
                  in.evaluation.metrics.n,
                  shown.size() < static_cast<size_t>(wrong) ? fmt::format("{} of them here", shown.size())
                                                            : "here they are");
  out += "<div class=\"gallery\">\n";
  for (const Outcome& o : shown) {
    const std::string id = markup_text(in.data.id(o.row));
    out += fmt::format(
        "<figure><img alt=\"{0}\" src=\"{1}\"><figcaption>{0}<br>true <b>{2}</b>"
        "<br>predicted <b>{3}</b> {4:.2f}",
        id, picture_uri(resize_image(in.data.read(o.row), kThumbnail)), markup_text(classes[o.label]),
        markup_text(classes[o.predicted]), o.probability);
    double ra = 0, dec = 0;
    if (in.data.sky(o.row, ra, dec)) out += fmt::format("<br>{:.5f} {:+.5f}", ra, dec);
    out += "</figcaption></figure>\n";
  }
  return out + "</div>\n";
}

}  // namespace

std::vector<Outcome> worst_mistakes(const std::vector<Outcome>& outcomes, size_t count) {
  std::vector<Outcome> wrong;
  for (const Outcome& o : outcomes)
    if (o.label != o.predicted) wrong.push_back(o);
  std::stable_sort(wrong.begin(), wrong.end(),
                   [](const Outcome& a, const Outcome& b) { return a.probability > b.probability; });
  if (wrong.size() > count) wrong.resize(count);
  return wrong;
}

std::vector<Outcome> telling_examples(const std::vector<Outcome>& outcomes, size_t count) {
  std::vector<Outcome> best;  // by class, as far as there is one
  for (const Outcome& o : outcomes) {
    if (o.label != o.predicted) continue;
    const auto same =
        std::find_if(best.begin(), best.end(), [&](const Outcome& b) { return b.label == o.label; });
    if (same == best.end())
      best.push_back(o);
    else if (o.probability > same->probability)
      *same = o;
  }
  std::sort(best.begin(), best.end(), [](const Outcome& a, const Outcome& b) { return a.label < b.label; });
  if (best.size() > count) best.resize(count);
  for (const Outcome& o : worst_mistakes(outcomes, count - best.size())) best.push_back(o);
  return best;
}

std::string report_html(const ReportInput& in) {
  const Evaluation& e = in.evaluation;
  const std::string name = markup_text(in.model.architecture.name + " on " + e.data);
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; img-src data:; "
      "style-src 'unsafe-inline'\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<link rel=\"icon\" href=\"data:,\">\n<title>" +
      name + "</title>\n<style>" + kStyle + "</style></head><body>\n<h1>" + name + "</h1>\n";
  auto section = [&](const char* title, const std::string& content) {
    out += fmt::format("<section><h2>{}</h2>\n", title) + content + "</section>\n";
  };
  if (const std::string warning = overlap_warning(e); !warning.empty())
    out += "<p><b>" + markup_text(warning) + "</b></p>\n";
  out += tiles(e);
  if (const auto record = training_record_if_any(e.model))
    section("Training", "<div class=\"pair\"><div>" + chart_svg(loss_chart(*record)) + "</div><div>" +
                            chart_svg(accuracy_chart(*record)) + "</div></div>\n" +
                            fmt::format("<p class=\"soft\">Lowest validation loss in epoch {}.</p>\n",
                                        record->best_epoch()));
  section("Confusion matrix", "<img alt=\"confusion matrix, rows are true classes\" src=\"" +
                                  picture_uri(confusion_picture(e.confusion, e.classes)) + "\">\n");
  section("Scores by class", scores_table(e));
  section("Calibration", calibration(e));
  if (!e.speed.empty()) section("Speed", speed_table(e));
  section("Misclassified galaxies", mistakes(in));
  if (in.explanations.width > 0)
    section("What the network looks at",
            "<p>Of each class the galaxy recognised with most confidence, then the surest mistakes. Saliency "
            "is the gradient of the predicted class score in the pixels; Grad-CAM weighs the map of layer " +
                markup_text(in.explanation_layer) + ".</p>\n<img alt=\"saliency and Grad-CAM\" src=\"" +
                picture_uri(in.explanations) + "\">\n");
  section("Model card", model_card(in));
  section("Data card", data_card(in));
  section("Command", commands(in));
  return out + "</body></html>\n";
}

}  // namespace gm
