// The page; see html_report.h. What it looks like and draws is in html/; here the parts are joined.
#include "loadtest/html_report.h"

#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "loadtest/json_report.h"
#include "loadtest/plot_data.h"

namespace sessa {
// Files of html/ and Chart.js, as sessa_embed puts them into the program.
extern const char *const loadtest_page_html,
    *const loadtest_page_css, *const loadtest_chart_js, *const loadtest_format_js,
                                                            *const loadtest_plots_js, *const loadtest_page_js;
extern const size_t loadtest_page_html_size, loadtest_page_css_size, loadtest_chart_js_size,
    loadtest_format_js_size, loadtest_plots_js_size, loadtest_page_js_size;
}  // namespace sessa

namespace sessa::loadtest {
namespace {

// How a policy names a script or style that may stand in the page.
std::string PolicyHash(absl::string_view text) {
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int size = 0;
  EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr);
  return absl::StrCat("'sha256-", absl::Base64Escape({reinterpret_cast<const char *>(digest), size}), "'");
}

}  // namespace

std::string HtmlReport(const std::vector<RunReport> &runs, const Slo &slo) {
  boost::json::object data = JsonReport(runs, slo);
  boost::json::array &plots = data["plots"].emplace_array();
  for (const RunReport &report : runs) plots.push_back(PlotData(report));
  data["limits"] = {{"gaps", kMaxGapPoints}, {"bins", kMaxTimeBins}};

  const absl::string_view style(loadtest_page_css, loadtest_page_css_size);
  const absl::string_view scripts[] = {{loadtest_chart_js, loadtest_chart_js_size},
                                       {loadtest_format_js, loadtest_format_js_size},
                                       {loadtest_plots_js, loadtest_plots_js_size},
                                       {loadtest_page_js, loadtest_page_js_size}};
  std::string policy =
      absl::StrCat("default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src ",
                   PolicyHash(style), "; script-src");
  std::string elements;
  for (absl::string_view script : scripts) {
    absl::StrAppend(&policy, " ", PolicyHash(script));
    absl::StrAppend(&elements, "<script>", script, "</script>\n");
  }
  // With no '<' in it the data can't end its element, whatever names and errors hold.
  const std::string json = absl::StrReplaceAll(boost::json::serialize(data), {{"<", "\\u003c"}});
  return absl::StrReplaceAll(
      absl::string_view(loadtest_page_html, loadtest_page_html_size),
      {{"{{policy}}", policy}, {"{{style}}", style}, {"{{scripts}}", elements}, {"{{data}}", json}});
}

}  // namespace sessa::loadtest
