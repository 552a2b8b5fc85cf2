# sessa_embed(TARGET SYMBOL FILE): puts FILE into the target as `extern const char* const SYMBOL` of `extern const size_t SYMBOL_size`
# bytes, in namespace sessa. For pages and scripts that a program carries, so that it needs no files beside it.
# Which file on disk has Chart.js (Debian's libjs-chart.js, MIT), the plots of the server's page and of the load tester's report.
set(SESSA_CHART_JS /usr/share/javascript/chart.js/chart.min.js)

function(sessa_embed target symbol file)
  set(source ${CMAKE_CURRENT_BINARY_DIR}/${symbol}.cc)
  file(CONFIGURE OUTPUT ${source} @ONLY CONTENT [[
#include <cstddef>
namespace sessa {
extern "C" const char @symbol@_begin[];
extern "C" const char @symbol@_end[];
asm(".pushsection .rodata\n@symbol@_begin:\n.incbin \"@file@\"\n@symbol@_end:\n.byte 0\n.popsection");
extern const char* const @symbol@;
extern const size_t @symbol@_size;
const char* const @symbol@ = @symbol@_begin;
const size_t @symbol@_size = static_cast<size_t>(@symbol@_end - @symbol@_begin);
}  // namespace sessa
]])
  set_property(SOURCE ${source} APPEND PROPERTY OBJECT_DEPENDS ${file})
  target_sources(${target} PRIVATE ${source})
endfunction()
