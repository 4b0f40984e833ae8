sluice_test(NAME services_native_test
  SRCS native_door_test.cc request_codec_test.cc status_mapping_test.cc
  DEPS sluice_grpc sluice_protos sluice_test_support fmt::fmt)
