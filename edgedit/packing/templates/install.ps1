# Installs edgedit {{ edgedit }} on this machine from this folder alone. Nothing is fetched from a network.
param(
    [string]$Target = (Join-Path $env:LOCALAPPDATA 'edgedit'),
    [string]$Python = ''
)
$ErrorActionPreference = 'Stop'
$pack = $PSScriptRoot

function Fail([string]$message) {
    [Console]::Error.WriteLine("error: $message")
    exit 1
}

$sums = Join-Path $pack 'SHA256SUMS'
if (-not (Test-Path -LiteralPath $sums -PathType Leaf)) { Fail 'the pack has no SHA256SUMS; copy it again' }
$lines = @(Get-Content -LiteralPath $sums -Encoding UTF8)
if ($lines.Count -lt 1) { Fail 'SHA256SUMS is empty; copy the pack again' }
foreach ($line in $lines) {
    if ($line -notmatch '^([0-9a-f]{64})  (.+)$') { Fail 'SHA256SUMS is damaged; copy the pack again' }
    $digest = $Matches[1]
    $name = $Matches[2]
    $path = Join-Path $pack $name
    if (-not (Test-Path -LiteralPath $path -PathType Leaf)) { Fail "$name is missing; copy the pack again" }
    if ((Get-FileHash -LiteralPath $path -Algorithm SHA256).Hash -ne $digest) { Fail "$name is damaged; copy the pack again" }
}
if ($env:PROCESSOR_ARCHITECTURE -ne '{{ machine }}') {
    Fail "this pack is for {{ platform }}, and this machine is $env:PROCESSOR_ARCHITECTURE; pack for this one"
}
if ($Python) { $command = @($Python) } else { $command = @('py', '-{{ python }}') }
if (-not (Get-Command $command[0] -ErrorAction SilentlyContinue)) {
    Fail "there is no $($command[0]); install Python {{ python }}, or name it: install.cmd -Python python.exe"
}
$first = $command[0]
$rest = @($command | Select-Object -Skip 1)
$found = & $first @rest -c 'import sys; print(sys.version_info[0], sys.version_info[1], sep=chr(46))'
if ($LASTEXITCODE -ne 0 -or $found -ne '{{ python }}') { Fail "$command is not Python {{ python }}, which this pack is for" }
if ((Test-Path -LiteralPath $Target) -and @(Get-ChildItem -LiteralPath $Target -Force).Count) {
    Fail "$Target is there and not an empty folder; name another one: install.cmd -Target FOLDER"
}

$env:PYTHONPATH = $null
$env:PYTHONHOME = $null
$complete = $false
try {
    New-Item -ItemType Directory -Force -Path $Target | Out-Null
    Write-Output "installing {{ wheels | length }} wheels into $Target\venv"
    & $first @rest -m venv (Join-Path $Target 'venv')
    if ($LASTEXITCODE -ne 0) { Fail 'no venv can be made there' }
    $venv = Join-Path $Target 'venv\Scripts'
    & (Join-Path $venv 'python.exe') -m pip --isolated --disable-pip-version-check install --quiet --no-cache-dir `
        --no-index --find-links (Join-Path $pack 'wheels') --only-binary :all: --no-deps --require-hashes `
        --requirement (Join-Path $pack 'requirements.txt')
    if ($LASTEXITCODE -ne 0) { Fail 'the wheels cannot be installed' }
    Write-Output 'copying the bundle {{ bundle }}'
    Copy-Item -Recurse -LiteralPath (Join-Path $pack 'bundle') -Destination $Target
    Copy-Item -LiteralPath (Join-Path $pack 'pack.json'), (Join-Path $pack '{{ expected_file }}') -Destination $Target
    & (Join-Path $venv 'edgedit.exe') pack --self-test $Target
    if ($LASTEXITCODE -ne 0) { Fail 'the self-test failed, so nothing stays installed' }
    $complete = $true
} finally {
    # Nothing half-installed stays.
    if (-not $complete) { Remove-Item -Recurse -Force -LiteralPath $Target -ErrorAction SilentlyContinue }
}
Write-Output 'installed; for example:'
Write-Output "  $venv\edgedit edit photo.jpg -b $Target\bundle -d {{ expected.direction }}:{{ expected.strength }} -o out.png"
