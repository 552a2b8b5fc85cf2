// grpc.health.v1 over the scripted engine: the names that there are, and watchers at the server's end.
// Watch's changes are in grpc_test.cc.
#include <algorithm>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "tests/server/grpc_fixture.h"

namespace sessa {
namespace {

TEST_F(GrpcTest, HealthListsItsNames) {
  Load();
  server_->PublishHealth();
  auto stub = grpc::health::v1::Health::NewStub(channel_);
  grpc::ClientContext context;
  grpc::health::v1::HealthListResponse reply;
  ASSERT_TRUE(stub->List(&context, {}, &reply).ok());
  std::vector<std::string> names;
  for (const auto& [name, status] : reply.statuses()) {
    names.push_back(name);
    EXPECT_EQ(status.status(), grpc::health::v1::HealthCheckResponse::SERVING) << name;
  }
  std::sort(names.begin(), names.end());
  EXPECT_EQ(names, std::vector<std::string>(
                       {"", "inference.GRPCInferenceService", "liveness", "sessa.v1.Generation", "startup"}));
  grpc::ClientContext unknown;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("nobody");
  grpc::health::v1::HealthCheckResponse check;
  EXPECT_EQ(stub->Check(&unknown, request, &check).error_code(), grpc::StatusCode::NOT_FOUND);
}

// A Watch of a name that is not known, and the end of the server.
TEST_F(GrpcTest, HealthWatchOfAnUnknownNameWaitsForIt) {
  auto stub = grpc::health::v1::Health::NewStub(channel_);
  grpc::ClientContext context;
  grpc::health::v1::HealthCheckRequest request;
  request.set_service("nobody");
  auto reader = stub->Watch(&context, request);
  grpc::health::v1::HealthCheckResponse reply;
  ASSERT_TRUE(reader->Read(&reply));
  EXPECT_EQ(reply.status(), grpc::health::v1::HealthCheckResponse::SERVICE_UNKNOWN);
  const absl::Time begun = MonotonicNow();
  server_->Shutdown(MonotonicNow() + absl::Seconds(60));
  EXPECT_LT(MonotonicNow() - begun, absl::Seconds(50)) << "watchers do not hold it up";
  EXPECT_FALSE(reader->Read(&reply));
  EXPECT_EQ(reader->Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

}  // namespace
}  // namespace sessa
