# sessa_add_fuzz_target(NAME SOURCE SEEDS MUTANTS LIBRARY...): with SESSA_FUZZ a libFuzzer program, build/fuzz/NAME; without, the
# same source under tests/fuzz_main.cc as a test of a few seconds, which tries so many MUTANTS. SEEDS: a folder of inputs; beside
# it may be SEEDS.dict, words that the format is made of.
if(SESSA_FUZZ)
  add_custom_target(fuzz_targets)  # all of them and nothing else
endif()
function(sessa_add_fuzz_target name source seeds mutants)
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${ARGN})
  if(SESSA_FUZZ)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
    add_dependencies(fuzz_targets ${name})
    file(WRITE ${CMAKE_BINARY_DIR}/${name}.seeds ${seeds})  # for ./dev fuzz
  else()
    target_sources(${name} PRIVATE ${CMAKE_SOURCE_DIR}/tests/fuzz_main.cc)
    add_test(NAME ${name} COMMAND ${name} ${seeds} ${mutants})
    set_tests_properties(${name} PROPERTIES TIMEOUT 600)
  endif()
endfunction()
