-- What wrk sends: a browser's headers, GET.   wrk … URL -- MODE [FILE]
--   same      every request is the URL itself
--   varied    20,000 prebuilt clicks in turn, each with another browser, page, language and parameters
--   paths     the lines of FILE in turn: path and query each
-- Everything is built before the first request, so that the client stays faster than what it measures.

local DISTINCT = 20000

local SYSTEMS = {
  "Windows NT 10.0; Win64; x64", "Macintosh; Intel Mac OS X 10_15_7", "X11; Linux x86_64",
  "Linux; Android 14; SM-S918B", "Linux; Android 13; Pixel 7", "Linux; Android 15; CPH2581",
}
local LANGUAGES = { "en-US", "en-GB", "de-DE", "fr-FR", "es-MX", "pt-BR", "pl-PL", "ja-JP", "tr-TR", "id-ID" }

wrk.headers["User-Agent"] = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
  .. "Chrome/142.0.0.0 Safari/537.36"
wrk.headers["Accept"] = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
wrk.headers["Accept-Language"] = "en-US,en;q=0.9"
wrk.headers["Accept-Encoding"] = "gzip, deflate, br"
wrk.headers["Referer"] = "https://deal.blog/holiday"

local function pick(list)
  return list[math.random(#list)]
end

local function varied_click(number)
  local headers = {}
  for name, value in pairs(wrk.headers) do
    headers[name] = value
  end
  headers["User-Agent"] = string.format(
    "Mozilla/5.0 (%s) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/%d.0.%d.%d Safari/537.36",
    pick(SYSTEMS), math.random(100, 142), math.random(4000, 7000), math.random(0, 250))
  headers["Accept-Language"] = string.format("%s,%s;q=0.%d", pick(LANGUAGES), pick(LANGUAGES), math.random(1, 9))
  headers["Referer"] = string.format("https://blog%d.example.com/deals/%d", math.random(300), number)
  local path = string.format("/aff_c?offer_id=17&aff_id=2&aff_sub=ad%d&aff_click_id=%08x%08x&source=site%d",
    number, math.random(0, 0x7fffffff), math.random(0, 0x7fffffff), math.random(300))
  return wrk.format("GET", path, headers)
end

local function clicks()
  local requests = {}
  for number = 1, DISTINCT do
    requests[number] = varied_click(number)
  end
  return requests
end

local function paths(file)
  local requests = {}
  for path in io.lines(file) do
    requests[#requests + 1] = wrk.format("GET", path)
  end
  return requests
end

function init(args)
  if args[1] == nil or args[1] == "same" then
    return  -- without a `request` wrk sends one and the same buffer
  end
  math.randomseed(17)
  local requests = args[1] == "varied" and clicks() or paths(args[2])
  local count, next_one = #requests, 0
  function request()
    next_one = next_one % count + 1
    return requests[next_one]
  end
end
