@rem Runs install.ps1 beside it: install.cmd [-Target FOLDER] [-Python python.exe]
@powershell -NoProfile -ExecutionPolicy Bypass -File "%~dp0install.ps1" %*
@exit /b %ERRORLEVEL%
