# One call per folder: sluice_library(), sluice_binary(), sluice_test().
# Every target gets the same warnings (as errors) and sanitizers; vendor headers are SYSTEM and exempt.

add_library(sluice_compile_options INTERFACE)
target_compile_options(sluice_compile_options INTERFACE
  -Wall -Wextra -Wpedantic -Werror -Wshadow -Wnon-virtual-dtor -Wimplicit-fallthrough -Wno-missing-field-initializers)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  target_compile_options(sluice_compile_options INTERFACE -Wno-restrict)  # false alarms on std::string (GCC bug 105651)
endif()
find_program(SLUICE_MOLD mold)  # links in a fraction of the time; the result is the same
if(SLUICE_MOLD)
  target_link_options(sluice_compile_options INTERFACE -fuse-ld=mold)
endif()
if(SLUICE_SANITIZE)
  target_compile_options(sluice_compile_options INTERFACE -fsanitize=${SLUICE_SANITIZE} -fno-omit-frame-pointer -g1)
  target_link_options(sluice_compile_options INTERFACE -fsanitize=${SLUICE_SANITIZE})
  if(SLUICE_SANITIZE MATCHES "undefined")
    target_compile_options(sluice_compile_options INTERFACE -fno-sanitize-recover=undefined)
  endif()
endif()
if(SLUICE_COVERAGE)
  target_compile_options(sluice_compile_options INTERFACE --coverage -O0 -g)
  target_link_options(sluice_compile_options INTERFACE --coverage)
endif()

# sluice_library(NAME <target> [SRCS ...] [DEPS ...] [PRIVATE_DEPS ...])
# DEPS are visible to users of the headers, PRIVATE_DEPS are not. Without SRCS: a header-only library.
function(sluice_library)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS;PRIVATE_DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(${ARG_NAME} STATIC ${ARG_SRCS})
    target_include_directories(${ARG_NAME} PUBLIC ${CMAKE_SOURCE_DIR})
    target_link_libraries(${ARG_NAME} PUBLIC ${ARG_DEPS} PRIVATE sluice_compile_options ${ARG_PRIVATE_DEPS})
  else()
    add_library(${ARG_NAME} INTERFACE)
    target_include_directories(${ARG_NAME} INTERFACE ${CMAKE_SOURCE_DIR})
    target_link_libraries(${ARG_NAME} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

# sluice_binary(NAME <target> SRCS ... DEPS ...)
function(sluice_binary)
  cmake_parse_arguments(ARG "" "NAME" "SRCS;DEPS" ${ARGN})
  add_executable(${ARG_NAME} ${ARG_SRCS})
  target_include_directories(${ARG_NAME} PRIVATE ${CMAKE_SOURCE_DIR})
  target_link_libraries(${ARG_NAME} PRIVATE sluice_compile_options ${ARG_DEPS})
endfunction()

# sluice_test(NAME <target> SRCS ... DEPS ... [LABEL unit|integration|sim|fault|model|timing|tidy] [TIMEOUT seconds])
# One ctest entry per gtest case.
function(sluice_test)
  cmake_parse_arguments(ARG "" "NAME;LABEL;TIMEOUT" "SRCS;DEPS" ${ARGN})
  if(NOT SLUICE_BUILD_TESTS)
    return()
  endif()
  if(NOT ARG_LABEL)
    set(ARG_LABEL unit)
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 60)
  endif()
  if(SLUICE_SANITIZE)
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 10")  # so much slower they may be
  endif()
  sluice_binary(NAME ${ARG_NAME} SRCS ${ARG_SRCS} DEPS ${ARG_DEPS} GTest::gmock GTest::gtest_main)
  set_target_properties(${ARG_NAME} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  set(lock)
  if(ARG_LABEL STREQUAL "model")
    set(lock RESOURCE_LOCK model)  # they compute with every core: one at a time
  elseif(ARG_LABEL STREQUAL "timing")
    set(lock RUN_SERIAL ON)  # what is late beside others would be taken for wrong
  endif()
  gtest_discover_tests(${ARG_NAME}
    WORKING_DIRECTORY ${CMAKE_SOURCE_DIR}
    DISCOVERY_TIMEOUT 60
    PROPERTIES LABELS ${ARG_LABEL} TIMEOUT ${ARG_TIMEOUT} ${lock})
endfunction()
