-- Sends the requests of a prepared file, and ends with a line of JSON.
local requests = {}
local at = 0

function init(args)
  local file = assert(io.open(args[1], "rb"))
  for request in file:read("*a"):gmatch("[^\30]+") do
    requests[#requests + 1] = request
  end
  file:close()
end

function request()
  at = at % #requests + 1
  return requests[at]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"responses": %d, "error_responses": %d, "failed": %d, "seconds": %f, "milliseconds": ' ..
      '{"p50": %f, "p90": %f, "p99": %f, "p99.9": %f, "max": %f}}\n',
    summary.requests, errors.status, errors.connect + errors.read + errors.write,
    summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(90) / 1e3, latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3, latency.max / 1e3))
end
