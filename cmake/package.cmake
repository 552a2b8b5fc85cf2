# ./dev package: a Debian package of server and load tester with what a system wants beside them.
if(NOT SESSA_SERVER OR SESSA_SANITIZE OR SESSA_FUZZ)
  return()
endif()
install(TARGETS sessa-server sessa-loadtest)
install(FILES deploy/systemd/sessa-serve.service DESTINATION lib/systemd/system)
install(FILES deploy/systemd/flags DESTINATION /etc/sessa-serve)
install(DIRECTORY models/demo DESTINATION share/sessa-serve/models PATTERN "*.md" EXCLUDE PATTERN recall.jsonl EXCLUDE)
install(FILES README.md deploy/package/copyright DESTINATION share/doc/sessa-serve)

# Manual pages are what --help says.
find_program(HELP2MAN help2man)
find_program(GZIP gzip)
if(HELP2MAN AND GZIP)
  set(pages)
  foreach(page "sessa-server 8 serves Sessa language models over REST and gRPC" "sessa-loadtest 1 load tester for servers of language models")
    string(REGEX MATCH "^([^ ]+) ([0-9]) (.*)$" whole "${page}")
    set(output ${CMAKE_BINARY_DIR}/man/${CMAKE_MATCH_1}.${CMAKE_MATCH_2}.gz)
    add_custom_command(OUTPUT ${output} DEPENDS ${CMAKE_MATCH_1} VERBATIM
      COMMAND ${CMAKE_COMMAND} -E make_directory ${CMAKE_BINARY_DIR}/man
      COMMAND sh -c "\"$0\" --no-info --section=\"$1\" --name=\"$2\" \"$3\" | gzip -9n >\"$4\"" ${HELP2MAN} ${CMAKE_MATCH_2}
        ${CMAKE_MATCH_3} $<TARGET_FILE:${CMAKE_MATCH_1}> ${output})
    install(FILES ${output} DESTINATION share/man/man${CMAKE_MATCH_2})
    list(APPEND pages ${output})
  endforeach()
  add_custom_target(man ALL DEPENDS ${pages})
else()
  add_custom_target(man COMMAND ${CMAKE_COMMAND} -E echo "no manual pages: help2man is not installed")
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME sessa-serve)
set(CPACK_PACKAGE_VENDOR "Sessa Serve")
set(CPACK_PACKAGE_CONTACT "The Sessa Serve authors <sessa-serve@example.org>")
set(CPACK_PACKAGE_DESCRIPTION_SUMMARY "server for Sessa language models")
set(CPACK_PACKAGE_DESCRIPTION "Serves Sessa language models over an OpenAI-compatible REST API and
over gRPC, with continuous batching onto an engine that keeps the
recurrent state of each sequence in a paged cache. With it comes
sessa-loadtest, which measures this and other servers of language models.")
set(CPACK_PACKAGING_INSTALL_PREFIX /usr)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_SECTION net)
set(CPACK_DEBIAN_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_COMPRESSION_TYPE xz)
set(CPACK_DEBIAN_PACKAGE_CONTROL_EXTRA ${CMAKE_SOURCE_DIR}/deploy/package/conffiles ${CMAKE_SOURCE_DIR}/deploy/package/postinst
  ${CMAKE_SOURCE_DIR}/deploy/package/prerm ${CMAKE_SOURCE_DIR}/deploy/package/postrm)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)
include(CPack)
