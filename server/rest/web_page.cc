// See web_page.h.
#include "server/rest/web_page.h"

#include <cstddef>
#include <utility>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "openssl/sha.h"

namespace sessa {

// Made by sessa_embed (CMakeLists.txt).
#define SESSA_WEB_FILE(symbol)     \
  extern const char* const symbol; \
  extern const size_t symbol##_size
SESSA_WEB_FILE(web_index_html);
SESSA_WEB_FILE(web_page_css);
SESSA_WEB_FILE(web_page_js);
SESSA_WEB_FILE(web_text_js);
SESSA_WEB_FILE(web_api_js);
SESSA_WEB_FILE(web_load_js);
SESSA_WEB_FILE(web_metrics_js);
SESSA_WEB_FILE(web_plots_js);
SESSA_WEB_FILE(web_icon_svg);
SESSA_WEB_FILE(web_chart_js);
#undef SESSA_WEB_FILE

namespace {

constexpr char kHtml[] = "text/html; charset=utf-8", kCss[] = "text/css; charset=utf-8",
               kJs[] = "text/javascript; charset=utf-8", kSvg[] = "image/svg+xml";

struct WebFile {
  const char* path;
  const char* content_type;
  absl::string_view bytes;
  std::string etag = {};  // quoted
};

const std::vector<WebFile>& WebFiles() {
  static const auto* const files = [] {
    auto* all = new std::vector<WebFile>{
        {"/", kHtml, {web_index_html, web_index_html_size}},
        {"/web/page.css", kCss, {web_page_css, web_page_css_size}},
        {"/web/page.js", kJs, {web_page_js, web_page_js_size}},
        {"/web/text.js", kJs, {web_text_js, web_text_js_size}},
        {"/web/api.js", kJs, {web_api_js, web_api_js_size}},
        {"/web/load.js", kJs, {web_load_js, web_load_js_size}},
        {"/web/metrics.js", kJs, {web_metrics_js, web_metrics_js_size}},
        {"/web/plots.js", kJs, {web_plots_js, web_plots_js_size}},
        {"/web/icon.svg", kSvg, {web_icon_svg, web_icon_svg_size}},
        {"/web/chart.js", kJs, {web_chart_js, web_chart_js_size}},
    };
    for (WebFile& file : *all) {
      unsigned char digest[SHA256_DIGEST_LENGTH];
      SHA256(reinterpret_cast<const unsigned char*>(file.bytes.data()), file.bytes.size(), digest);
      file.etag = absl::StrCat(
          "\"", absl::BytesToHexString({reinterpret_cast<const char*>(digest), sizeof(digest) / 2}), "\"");
    }
    return all;
  }();
  return *files;
}

Reply ReplyWith(const WebFile& file, const std::string& if_none_match) {
  Reply reply;
  reply.content_type = file.content_type;
  reply.headers = {
      // Its own files and this server are all that the page may load or talk to; no script or style stands
      // inside a text, and nobody may frame it.
      {"Content-Security-Policy",
       "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
       "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"},
      {"X-Content-Type-Options", "nosniff"},
      {"Referrer-Policy", "no-referrer"},
      {"Cross-Origin-Resource-Policy", "same-origin"},
      // Kept, but asked for again each time: a new server's page is never mixed with an old one's scripts.
      {"Cache-Control", "no-cache"},
      {"ETag", file.etag},
  };
  if (if_none_match == "*" || absl::StrContains(if_none_match, file.etag)) {
    reply.status = 304;
  } else {
    reply.body =
        absl::MakeCordFromExternal(file.bytes, [](absl::string_view) {});  // it is part of the program
  }
  return reply;
}

}  // namespace

Reply WebReply(const std::string& path, const std::string& if_none_match) {
  for (const WebFile& file : WebFiles()) {
    if (path == file.path) return ReplyWith(file, if_none_match);
  }
  return ErrorReply(404, "not_found", absl::StrCat("There is nothing at '", path, "'."));
}

}  // namespace sessa
