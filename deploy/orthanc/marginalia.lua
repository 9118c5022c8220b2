-- Tells a Marginalia node that a study in this Orthanc is stable. README.md beside this file says
-- how it is configured, and what is lost while the node is down: the Python plug-in loses nothing.

local OURS = 'Marginalia'  -- Manufacturer of the node's own results

local settings = GetOrthancConfiguration()['Marginalia'] or {}
local told = {}     -- study → when it last grew by something that is not ours, at our last event
local sending = {}  -- job that sends a study to the node → Study Instance UID

local function log(uid, words)
  print('Marginalia: study ' .. uid .. ': ' .. words)
end

-- The series that are not our own results, and when the newest of them grew.
local function foreign(study)
  local series, newest = {}, ''
  for _, each in ipairs(ParseJson(RestApiGet('/studies/' .. study .. '/series'))) do
    if each['MainDicomTags']['Manufacturer'] ~= OURS then
      table.insert(series, each['ID'])
      newest = each['LastUpdate'] > newest and each['LastUpdate'] or newest
    end
  end
  return series, newest
end

local function tell(uid)
  local url = settings['Url'] .. '/api/studies/' .. uid
  if settings['Source'] and not settings['Modality'] then
    url = url .. '?source=' .. settings['Source']
  end
  if SetHttpTimeout then  -- since Orthanc 1.11.1; before, its option HttpTimeout counts
    SetHttpTimeout(5)
  end
  local answer = HttpPost(url, '', { ['Authorization'] = 'Bearer ' .. settings['Token'] })
  log(uid, answer and 'the node was told' or 'the node could not be told')
  return answer ~= nil
end

function OnStableStudy(study, tags, metadata)
  local uid = tags['StudyInstanceUID']
  local series, newest = foreign(study)
  if not settings['Url'] or #series == 0 or told[study] == newest then
    return  -- it only grew by our own results
  end
  if not settings['Modality'] then
    if tell(uid) then
      told[study] = newest
    end
    return
  end
  -- in the background: a script that waits holds up what Orthanc receives
  local order = { ['Resources'] = series, ['Synchronous'] = false }
  local job = RestApiPost('/modalities/' .. settings['Modality'] .. '/store', DumpJson(order, true))
  if job then
    sending[ParseJson(job)['ID']] = uid
    told[study] = newest
  else
    log(uid, 'it could not be sent')
  end
end

function OnJobSuccess(job)
  if sending[job] then
    tell(sending[job])
    sending[job] = nil
  end
end

function OnJobFailure(job)
  if sending[job] then
    log(sending[job], 'it could not be sent')
    sending[job] = nil
  end
end
