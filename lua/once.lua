-- A module that is built when it is first asked for, and then kept for the rest of the call.
local function once(build)
  local built
  return function()
    built = built or build()
    return built
  end
end

