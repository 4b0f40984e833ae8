# Flags served to OpenFeature clients, and taken from a flagd control plane.
sluice_test(NAME services_flags_test
  SRCS flag_answers_test.cc flagd_service_test.cc flagd_sync_test.cc ofrep_handler_test.cc
       targeting_key_test.cc
  DEPS sluice_grpc sluice_flagd_sync sluice_protos sluice_struct_codec sluice_test_support gRPC::grpc++ fmt::fmt)
